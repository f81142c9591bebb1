"""What ``evaluate.py`` prints about the error of the bound."""

import pytest

from nelbo.evaluation.accumulator import BoundEstimate, Estimate
from nelbo.evaluation.units import unit_of
from nelbo.reports.evaluation import _error_lines


def error_lines(stderr: float, mc_stderr: float | None) -> dict[str, str]:
    total, part = Estimate(4.0, stderr, mc_stderr), Estimate(1.0, 0.1)
    return _error_lines(BoundEstimate(total, part, part, part, 8, 100), unit_of(1, None))


def test_parts_of_the_error_add_up():
    lines = error_lines(0.5, 0.3)
    assert lines["MC error"].startswith("0.3,")
    assert lines["data error"].startswith("0.4,")


@pytest.mark.parametrize("stderr", [0.068, 0.0986])
def test_monte_carlo_error_is_shown_as_at_most_the_error_of_the_total(stderr):
    lines = error_lines(stderr, 0.0986)
    assert lines["MC error"].startswith(f"{stderr:g}, all of the error")
    assert lines["data error"].startswith(
        "not resolved with 8 examples: the estimate of the MC error, 0.0986,"
    )
