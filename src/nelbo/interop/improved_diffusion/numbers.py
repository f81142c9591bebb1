"""Flags that are lists of numbers, as a string ``"16,8"`` or a sequence."""

import operator
from collections.abc import Sequence
from typing import Any


def whole_numbers(flag: str, value: str | Sequence[Any]) -> list[int]:
    """The integers of a flag.

    Raises:
        ValueError: if they are not integers.
    """
    try:
        parts = value.split(",") if isinstance(value, str) else value
        return [int(part) if isinstance(part, str) else operator.index(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise ValueError(f'{flag}={value!r}: expected whole numbers, such as "16,8"') from error


def numbers(flag: str, value: str | Sequence[Any]) -> list[float]:
    """The numbers of a flag.

    Raises:
        ValueError: if they are not numbers.
    """
    try:
        return [float(part) for part in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError) as error:
        raise ValueError(f'{flag}={value!r}: expected numbers, such as "0.5,1,2"') from error


def plain_number(value: float) -> float:
    """An int if the value is whole."""
    return int(value) if value == int(value) else value
