"""Bounds reached in a fixed time on fixed data: ``python -m records NAME``."""
