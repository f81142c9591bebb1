"""Advice on the measurement itself."""

from nelbo.reports.html.advice.advice import Advice
from nelbo.runs.paths import SUMMARY
from nelbo.runs.run_folder import Run

LARGE_ERROR = 0.02  # of the total


def not_finished(run: Run) -> Advice | None:
    """The figures are those of the last validation."""
    if run.summary:
        return None
    return Advice(
        f"This run has no {SUMMARY}: it is still running, or was stopped.",
        "Figures are those of its last validation; make the report again when it is finished.",
    )


def error_is_large(run: Run) -> Advice | None:
    """The figure is not known well."""
    name = f"{run.held_out}/{run.unit.metric}"
    total, error = run.final(name), run.final(f"{name}_stderr")
    if not run.ledger or not total or error is None or not error > LARGE_ERROR * abs(total):
        return None
    chance = run.final(f"{name}_stderr_monte_carlo")
    if chance is not None and chance**2 < 0.5 * error**2:
        change = (
            f"Most of it is there because {run.ledger['num_examples']:,} examples are a sample: "
            "more network evaluations do not reduce that, more examples would."
        )
    elif run.is_evaluation:
        change = (
            "Four times as many network evaluations halve the part that is chance: "
            "a lower estimator.target_stderr, or a higher estimator.evaluations_per_example."
        )
    else:
        change = (
            "Four times as many test_estimator.evaluations_per_example roughly halve it, as far as it comes "
            "from the choice of timesteps; estimator@test_estimator=full leaves none of that."
        )
    return Advice(f"The standard error is {error / abs(total):.0%} of the total.", change)
