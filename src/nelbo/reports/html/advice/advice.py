"""A piece of advice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What was found, and one sentence on what to do about it."""

    found: str
    change: str
