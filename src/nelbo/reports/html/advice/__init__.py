"""What looks wrong in a run, and what to change."""

from collections.abc import Callable

from nelbo.reports.html.advice.advice import Advice
from nelbo.reports.html.advice.chain import prior_is_visible, reconstruction_dominates, starts_too_clean
from nelbo.reports.html.advice.measurement import error_is_large, not_finished
from nelbo.reports.html.advice.variance import variance_at_a_limit
from nelbo.runs.run_folder import Run

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
