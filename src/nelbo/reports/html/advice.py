"""Advice: what looks wrong in a run, and which option to change.

On a learned variance: for short steps the best position between the limits is v = MSE / (1 - alpha_bar), the
mean squared error of x0_hat divided by the variance of the noise. It follows from the variance of
:class:`~nelbo.diffusion.variances.Analytic` and the limits log beta and log beta-tilde. So v = 0 where the
network removes all of the noise, as for data at a point, and v = 1 where it removes none, as for N(0, I): the
two cases for which DDPM's fixed variances are optimal (Improved DDPM, section 3.1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from nelbo.evaluation.t_bins import VISIBLE_SHARE
from nelbo.runs.bins import binned, log_bins, parts
from nelbo.runs.bound_table import chain_timesteps
from nelbo.runs.paths import SUMMARY
from nelbo.runs.run_folder import Run

VISIBLE_PRIOR = 0.01  # bits per dimension
DOMINANT_SHARE = 0.5  # of the bound, in L_0
LARGE_ERROR = 0.02  # of the total
AT_LOWER, AT_UPPER = 0.02, 0.98
CHANGES = {
    "lower limit, beta-tilde,": (
        "There x0_hat is free of nearly all of the noise, as if the data were a few points, and "
        "variance=fixed_small gives the same bound for these steps (L_0 depends on variance.first_step). "
        "If they are the cleanest ones, a lower schedule.logsnr_max leaves them out."
    ),
    "upper limit, beta,": (
        "There x0_hat has hardly less noise than x_t. Either the network has learned little at these "
        "levels and needs longer training; or the data is as random as N(0, I) there, and "
        "variance=fixed_large gives the same bound for these steps (L_0 depends on variance.first_step)."
    ),
}


@dataclass(frozen=True)
class Advice:
    """A finding, and one sentence on what to change."""

    found: str
    change: str


def advise(run: Run) -> list[Advice]:
    """Everything that applies to the run."""
    return [advice for check in CHECKS if (advice := check(run)) is not None]


def not_finished(run: Run) -> Advice | None:
    """Only the values of the last validation are known."""
    if run.summary:
        return None
    return Advice(
        f"This run has no {SUMMARY}: it is still running, or was stopped.",
        "Values are those of its last validation; write the report again when it is finished.",
    )


def starts_too_clean(run: Run) -> Advice | None:
    """Noise levels cleaner than half a bin of the data, which the softmax decoder needs."""
    share = run.final(f"{run.held_out}/share_below_half_bin") or 0.0
    if share <= VISIBLE_SHARE or str(run.ledger.get("decoder")).startswith("softmax"):
        return None
    return Advice(
        f"{share:.0%} of the bound lies in noise levels cleaner than half a bin of the data.",
        "There is nothing to learn there: start the chain later with "
        + ("a lower schedule.initial_max." if _is_learned(run) else "schedule.logsnr_max=auto."),
    )


def prior_is_visible(run: Run) -> Advice | None:
    """x_T depends on x_0. A shorter chain may end before T because that costs least."""
    prior, dims = run.final(f"{run.held_out}/L_T"), run.ledger.get("dims")
    T = run.ledger.get("T")
    if prior is None or dims is None or (T is not None and _end(run, -1) != T):
        return None
    bits_per_dim = prior / run.unit.per_nat / (dims * math.log(2))
    if bits_per_dim <= VISIBLE_PRIOR:
        return None
    return Advice(
        f"L_T is {prior:.3f} {run.unit.label}: x_T is not yet noise"
        + ("." if _is_learned(run) else ", and training cannot change that."),
        "Train the end of the schedule longer, or from a lower schedule.initial_min such as -12."
        if _is_learned(run)
        else "End the chain at a noisier level: schedule=cosine, or a lower schedule.logsnr_min such as -12.",
    )


def reconstruction_dominates(run: Run) -> Advice | None:
    """Most of the bound is L_0."""
    share = run.final(f"{run.held_out}/share/L_0") or 0.0
    if share <= DOMINANT_SHARE or not run.is_discrete:
        return None
    begin = _end(run, 0)
    if run.ledger.get("T", 1) is None:
        change = _start_cleaner_in_continuous_time(run)
    elif begin > 1:
        change = f"This chain begins at t = {begin}: more steps, or spacing=even, begin cleaner."
    elif run.ledger.get("variance") == "LearnedRange":
        change = "Start the chain cleaner: a higher schedule.logsnr_max, or more timesteps."
    else:
        change = (
            "Start the chain cleaner (a higher schedule.logsnr_max, or more timesteps), "
            "or let the variance be learned: objective=hybrid."
        )
    return Advice(
        f"{share:.0%} of the bound is L_0 (DDPM's on CIFAR-10: 53%), which depends on the "
        "decoder, and hardly on the network.",
        change,
    )


def _start_cleaner_in_continuous_time(run: Run) -> str:
    """Timesteps and reverse variances have no part in it."""
    u = str(run.ledger.get("timesteps", "")).partition(" ")[0]
    if ".." not in u and float(u or 0.0) > 0.0:
        return f"This chain begins at u = {u}: more steps, or spacing=even, begin cleaner."
    return f"Start cleaner: a higher schedule.{'initial_max' if _is_learned(run) else 'logsnr_max'}."


def variance_at_a_limit(run: Run) -> Advice | None:
    """The learned variance is at one of its limits where the bound is large."""
    found = run.best_step_table()
    if found is None:
        return None
    split, terms = found
    table = binned(terms, log_bins([terms]))
    value, interpolation = parts(table)[0][1:], table.interpolation[1:]  # the limits at L_0 are different
    # of a density, L_0 may be negative; L_t is not
    whole = parts(table)[0].sum() + run.prior(split) if run.is_discrete else value.sum()
    for limit, inside in zip(CHANGES, (interpolation < AT_LOWER, interpolation > AT_UPPER), strict=True):
        if value[inside].sum() > VISIBLE_SHARE * whole:
            return Advice(
                f"The learned variance is at its {limit} in steps that hold "
                f"{value[inside].sum() / whole:.0%} of {'the bound' if run.is_discrete else 'L_t'}.",
                CHANGES[limit],
            )
    return None


def error_is_large(run: Run) -> Advice | None:
    """The standard error of the total is large."""
    name = f"{run.held_out}/{run.unit.metric}"
    total, error = run.final(name), run.final(f"{name}_stderr")
    if not run.ledger or not total or error is None or not error > LARGE_ERROR * abs(total):
        return None
    monte_carlo = run.final(f"{name}_stderr_monte_carlo")
    if monte_carlo is not None and monte_carlo**2 < 0.5 * error**2:
        change = (
            f"Most of it is the data set error: {run.ledger['num_examples']:,} examples are a sample, "
            "so more examples reduce it, and more network evaluations do not."
        )
    elif run.is_evaluation:
        change = (
            "Four times as many network evaluations halve the Monte Carlo error: "
            "a lower estimator.target_stderr, or a higher estimator.evaluations_per_example."
        )
    else:
        change = (
            "Four times as many test_estimator.evaluations_per_example roughly halve the part that is due to "
            "the choice of timesteps; estimator@test_estimator=full removes that part."
        )
    return Advice(f"The standard error is {error / abs(total):.0%} of the total.", change)


def _is_learned(run: Run) -> bool:
    """Whether the ends of the schedule are parameters."""
    return "initial_max" in (run.config.get("schedule") or {})


def _end(run: Run, which: int) -> int:
    """The first (0) or last (-1) t of the chain that was measured."""
    return int(chain_timesteps(run.ledger)[which])


CHECKS: tuple[Callable[[Run], Advice | None], ...] = (
    not_finished,
    starts_too_clean,
    prior_is_visible,
    reconstruction_dominates,
    variance_at_a_limit,
    error_is_large,
)
