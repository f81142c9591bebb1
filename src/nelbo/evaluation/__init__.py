"""Measuring the bound: estimators, accumulators, units, the ledger, and the table of L_t against t."""
