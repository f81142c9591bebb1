"""Loggers of a training run."""
