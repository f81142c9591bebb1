"""Flags that are lists of numbers: ``"16,8"``, as a shell passes them, or a sequence."""

import operator
from collections.abc import Sequence


def whole_numbers(flag: str, value: str | Sequence[int] | Sequence[str]) -> list[int]:
    """The numbers of a flag.

    Raises:
        ValueError: naming the flag, when they are not whole numbers.
    """
    try:
        parts = value.split(",") if isinstance(value, str) else value
        return [int(part) if isinstance(part, str) else operator.index(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise ValueError(f'{flag}={value!r}: expected whole numbers, such as "16,8"') from error
