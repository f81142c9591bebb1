"""Measuring the bound: estimators, tallies, units, the ledger, and the table of L_t against t."""
