"""What looks wrong in a run, and what to change."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from nelbo.dashboard.run_folder import SUMMARY, Run

VISIBLE_SHARE = 0.05  # of the bound, in noise levels with nothing to learn
VISIBLE_PRIOR = 0.01  # bits per dimension
DOMINANT_SHARE = 0.5  # of the bound, in L_0
LARGE_ERROR = 0.02  # of the total


@dataclass(frozen=True)
class Advice:
    """What was found, and one sentence on what to do about it."""

    found: str
    change: str


def advise(run: Run) -> list[Advice]:
    """Everything that applies to the run."""
    return [advice for check in CHECKS if (advice := check(run)) is not None]


def not_finished(run: Run) -> Advice | None:
    """The figures are those of the last validation."""
    if run.summary:
        return None
    return Advice(
        f"This run has no {SUMMARY}: it is still going on, or was stopped.",
        "Figures are those of its last validation; make the report again when it is finished.",
    )


def starts_too_clean(run: Run) -> Advice | None:
    """Noise levels cleaner than half a bin of the data."""
    share = run.final("test/share_below_half_bin") or 0.0
    if share <= VISIBLE_SHARE:
        return None
    return Advice(
        f"{share:.0%} of the bound lies in noise levels cleaner than half a bin of the data.",
        "There is nothing to learn there: start the chain later with schedule.logsnr_max=auto.",
    )


def prior_is_visible(run: Run) -> Advice | None:
    """x_T still knows x_0."""
    prior, dims = run.final("test/L_T"), run.ledger.get("dims")
    if prior is None or dims is None:
        return None
    bits_per_dim = prior / run.unit.per_nat / (dims * math.log(2))
    if bits_per_dim <= VISIBLE_PRIOR:
        return None
    return Advice(
        f"L_T is {bits_per_dim:.3f} bits/dim: x_T is not yet noise, and no training makes up for that.",
        "End the chain at a noisier level: schedule=cosine, or a lower schedule.logsnr_min such as -12.",
    )


def reconstruction_dominates(run: Run) -> Advice | None:
    """Most of the code length is spent on the last step."""
    share = run.final("test/share/L_0") or 0.0
    if share <= DOMINANT_SHARE or not run.is_discrete:
        return None
    return Advice(
        f"{share:.0%} of the bound is L_0 (DDPM's on CIFAR-10: 53%), which the decoder decides, "
        "and hardly the network.",
        "Start the chain cleaner (a higher schedule.logsnr_max, or more timesteps), "
        "or let the variance be learned: variance=learned_range loss=hybrid.",
    )


def error_is_large(run: Run) -> Advice | None:
    """The figure is not known well."""
    total = run.final(f"test/{run.unit.metric}")
    error = run.final(f"test/{run.unit.metric}_stderr")
    if not total or error is None or not error > LARGE_ERROR * abs(total):
        return None
    return Advice(
        f"The standard error is {error / abs(total):.0%} of the total.",
        "Four times as many test_estimator.evaluations_per_example roughly halve it, "
        "as far as it comes from the choice of timesteps; estimator@test_estimator=full leaves none of that.",
    )


CHECKS: tuple[Callable[[Run], Advice | None], ...] = (
    not_finished,
    starts_too_clean,
    prior_is_visible,
    reconstruction_dominates,
    error_is_large,
)
