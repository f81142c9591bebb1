"""Numbers as people read them."""

import math
from typing import Any

from nelbo.text import printable

VISIBLE = 0.5e-4  # what four decimals show


def plus_minus(value: float | None, error: float | None) -> str:
    """``1.910 ± 0.030``: the error with two digits, the value with as many decimals."""
    if value is None or not math.isfinite(value):
        return "–"
    if error is None or not math.isfinite(error) or error <= 0:
        return short(value)
    if abs(value) < 1e-3 or error < VISIBLE:
        return f"{short(value)} ± {short(error, 2)}"
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 4)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def short(value: float, digits: int = 4) -> str:
    """So many digits; powers of ten for the very small."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


def duration(seconds: float | None) -> str:
    """``2 h 5 min``, ``3 min 20 s``, ``48 s``."""
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def cell(value: Any) -> str:
    """A value of a ledger or a configuration, printable."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return short(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else printable(value)


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
