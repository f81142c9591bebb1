"""Formatting of numbers, for the terminal and the report alike."""

import math
from typing import Any

from nelbo.text import printable

VISIBLE = 0.5e-4  # smallest value that four decimals do not round to 0
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def plus_minus(value: float | None, error: float | None, sign: bool = False) -> str:
    """A value and its standard error: ``1.910 ± 0.030``.

    The error has two significant digits but at most four decimals, the value as many decimals as the error.
    Errors that four decimals round to 0 are written in scientific notation: ``0.001966 ± 3.1 × 10⁻⁶``.

    Args:
        value: ``–`` if it is None or not finite.
        error: left out if it is None or 0; ``?`` if it is not finite, as of a single example.
        sign: write a + before positive values, for differences.
    """
    if value is None or not math.isfinite(value):
        return "–"
    plus = "+" if sign and value > 0 else ""
    if not error:
        return plus + short(value)
    if not math.isfinite(error):
        return f"{plus}{short(value)} ± ?"
    if error < VISIBLE:
        return f"{plus}{short(value)} ± {short(error, 2)}"
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 4)
    return f"{plus}{value:.{decimals}f} ± {error:.{decimals}f}"


def short(value: float, digits: int = 4) -> str:
    """A number with this many significant digits; scientific notation below 0.001, ``–`` if not finite."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def duration(seconds: float | None) -> str:
    """``2 h 5 min``, ``3 min 20 s``, ``48 s``; ``–`` for None."""
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def cell(value: Any) -> str:
    """A value of a ledger or a configuration as printable text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return short(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else printable(value)
