"""What looks wrong in a run, and what to change."""

from collections.abc import Callable

from nelbo.dashboard.report.advice.advice import Advice
from nelbo.dashboard.report.advice.chain import prior_is_visible, reconstruction_dominates, starts_too_clean
from nelbo.dashboard.report.advice.measurement import error_is_large, not_finished
from nelbo.dashboard.report.advice.variance import variance_at_a_limit
from nelbo.dashboard.run_folder import Run

CHECKS: tuple[Callable[[Run], Advice | None], ...] = (
    not_finished,
    starts_too_clean,
    prior_is_visible,
    reconstruction_dominates,
    variance_at_a_limit,
    error_is_large,
)

__all__ = ["CHECKS", "Advice", "advise"]


def advise(run: Run) -> list[Advice]:
    """Everything that applies to the run."""
    return [advice for check in CHECKS if (advice := check(run)) is not None]
