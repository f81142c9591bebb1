"""Comparison of runs: their choices, whether their bounds are comparable, and the differences."""
