"""Advice on where the chain begins and ends."""

import math

from nelbo.reports.html.advice.advice import Advice
from nelbo.runs.bound_table import chain_timesteps
from nelbo.runs.run_folder import Run

VISIBLE_SHARE = 0.05  # of the bound, in noise levels with nothing to learn
VISIBLE_PRIOR = 0.01  # bits per dimension
DOMINANT_SHARE = 0.5  # of the bound, in L_0


def starts_too_clean(run: Run) -> Advice | None:
    """Noise levels cleaner than half a bin of the data."""
    share = run.final(f"{run.held_out}/share_below_half_bin") or 0.0
    if share <= VISIBLE_SHARE:
        return None
    return Advice(
        f"{share:.0%} of the bound lies in noise levels cleaner than half a bin of the data.",
        "There is nothing to learn there: start the chain later with schedule.logsnr_max=auto.",
    )


def prior_is_visible(run: Run) -> Advice | None:
    """x_T still knows x_0. A shorter chain may end before T because that costs least."""
    prior, dims = run.final(f"{run.held_out}/L_T"), run.ledger.get("dims")
    if prior is None or dims is None or _end(run, -1) != run.ledger.get("T"):
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
    share = run.final(f"{run.held_out}/share/L_0") or 0.0
    if share <= DOMINANT_SHARE or not run.is_discrete:
        return None
    begin = _end(run, 0)
    if begin > 1:
        change = f"This chain begins at t = {begin}: one of more steps, or spacing=even, begins cleaner."
    elif run.ledger.get("variance") == "LearnedRange":
        change = "Start the chain cleaner: a higher schedule.logsnr_max, or more timesteps."
    else:
        change = (
            "Start the chain cleaner (a higher schedule.logsnr_max, or more timesteps), "
            "or let the variance be learned: objective=hybrid."
        )
    return Advice(
        f"{share:.0%} of the bound is L_0 (DDPM's on CIFAR-10: 53%), which the decoder decides, "
        "and hardly the network.",
        change,
    )


def _end(run: Run, which: int) -> int:
    """The first (0) or last (-1) t of the chain that was measured."""
    return int(chain_timesteps(run.ledger)[which])
