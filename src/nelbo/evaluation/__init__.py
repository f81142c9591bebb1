"""Measurement of the bound: estimators, accumulators, units, the ledger, and L_t against t."""
