"""A bar that grows from the middle, to the left for what was saved and to the right for what was lost."""

import math

MIDDLE = "│"


def bar(value: float, largest: float, half: int) -> str:
    """A bar of 2 half + 1 characters.

    Args:
        value: how long, and to which side; nothing for NaN.
        largest: what fills one side.
        half: characters on each side.
    """
    known = math.isfinite(value) and 0.0 < largest < math.inf
    whole, odd = divmod(round(2 * half * min(abs(value) / largest, 1.0)) if known else 0, 2)
    if value < 0:
        return f"{'▐' * odd + '█' * whole:>{half}}{MIDDLE}{'':{half}}"
    return f"{'':{half}}{MIDDLE}{'█' * whole + '▌' * odd:<{half}}"
