"""From sums over the draws of each step to curves: bins of log t, running sums, rate and distortion, gaps.

Steps are counted 1..K from the clean end; on a full chain step i is t = i, on a shorter one it is the i-th t
that is visited. The bound is a sum over steps, so a bin weighs as much as it has steps.

A bin is made of strata, ranges of steps so narrow that L_t hardly changes in them, as far as there are draws
enough. The mean of a stratum is that of all its draws, sum over sum of counts, and its error comes from
their sums of squares: a step that was drawn once does not count as much as one that was drawn a hundred
times. A bin averages its strata by how many steps they have, so that drawing steps unevenly, as importance
sampling does, does not tilt it. Values are nats per example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nelbo.evaluation.step_table import StepTable

STRATA_PER_DECADE = 40
SINGLE_STEPS = 64  # a chain so short is shown step by step


@dataclass(frozen=True)
class Bins:
    """Ranges of steps that cover 1..K without gaps; the first is step 1 alone, which is L_0.

    Attributes:
        t: (K,) of each step.
        first: lowest step of each.
        last: highest step of each.
        strata: lowest step of each stratum, among them all of ``first``; None where every bin is one.
    """

    t: np.ndarray
    first: np.ndarray
    last: np.ndarray
    strata: np.ndarray | None = None

    @property
    def size(self) -> np.ndarray:
        """How many steps are in each."""
        return self.last - self.first + 1

    @property
    def first_t(self) -> np.ndarray:
        """Cleanest t of each."""
        return self.t[self.first - 1]

    @property
    def last_t(self) -> np.ndarray:
        """Noisiest t of each."""
        return self.t[self.last - 1]

    @property
    def centre(self) -> np.ndarray:
        """Where to draw a bin on an axis of log t."""
        return np.sqrt(self.first_t * self.last_t)

    @property
    def edges(self) -> np.ndarray:
        """(B + 1,) ends, half way between two t."""
        between = 0.5 * (self.last_t[:-1] + self.first_t[1:])
        return np.concatenate([[self.first_t[0] - 0.5], between, [self.last_t[-1] + 0.5]])


@dataclass(frozen=True)
class Curve:
    """A value in each bin, and its standard error."""

    t: np.ndarray
    value: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Binned:
    """What the draws of each bin say, (B,).

    Attributes:
        bins: the ranges of steps.
        count: draws.
        mean: of L_t, per step.
        stderr: of the mean; NaN below two draws.
        mse: mean squared error of x0_hat; NaN where it was not measured.
        fraction: where between its limits a learned variance lies; NaN where it is fixed.
    """

    bins: Bins
    count: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    mse: np.ndarray
    fraction: np.ndarray


def log_bins(tables: Sequence[StepTable], per_decade: int = 8, at_least: int = 8) -> Bins:
    """Bins of equal width in log t, wider where any of the tables has too few draws.

    Args:
        tables: of one chain, whose draws are to be binned alike.
        per_decade: bins to a factor of ten in t, as far as there are that many steps.
        at_least: draws that a stratum, and so a bin, has in every table.
    """
    counts = np.stack([terms.count.numpy() for terms in tables])
    t = tables[0].t.numpy()
    strata, drawn = [1], np.full(len(tables), at_least)
    for low, high in pairwise(_log_edges(t, STRATA_PER_DECADE)):
        if drawn.min() >= at_least:
            strata.append(low)
            drawn = np.zeros(len(tables))
        drawn = drawn + counts[:, low - 1 : high - 1].sum(1)
    if drawn.min() < at_least and len(strata) > 2:
        strata.pop()  # what is left over joins the stratum before
    starts = np.array(strata)
    # a bin begins at the first stratum at or after the edge it should have
    after = np.searchsorted(starts, _log_edges(t, per_decade))
    first = np.unique(np.concatenate([starts[:2], starts[after[after < len(starts)]]]))
    return Bins(t, first, np.append(first[1:], len(t) + 1) - 1, starts)


def binned(terms: StepTable, bins: Bins) -> Binned:
    """Add up the draws of each stratum, and average strata into bins by how many steps they have."""
    strata = bins.first if bins.strata is None else bins.strata
    of_stratum = terms.merged(torch.from_numpy(strata - 1))
    of_bin = np.searchsorted(strata, bins.first)
    weight = np.diff(np.append(strata, len(terms.count) + 1)).astype(float)
    weight /= np.repeat(bins.size, np.diff(np.append(of_bin, len(strata))))

    def average(values: Tensor) -> np.ndarray:
        return np.add.reduceat(weight * values.numpy(), of_bin)

    return Binned(
        bins,
        np.add.reduceat(of_stratum.count.numpy(), of_bin),
        average(of_stratum.mean),
        np.sqrt(np.add.reduceat((weight * of_stratum.stderr.numpy()) ** 2, of_bin)),
        average(of_stratum.mse),
        average(of_stratum.interpolation),
    )


def from_noise(binned: Binned, prior: float) -> Curve:
    """L_T plus all terms from the noisiest down to t, at each bin's cleanest t; ends at the bound."""
    value, error = parts(binned)
    return Curve(binned.bins.first_t, prior + _sum_from_right(value), np.sqrt(_sum_from_right(error**2)))


def from_data(binned: Binned) -> Curve:
    """L_0 plus all terms from the cleanest up to t, at each bin's noisiest t; ends at the bound less L_T."""
    value, error = parts(binned)
    return Curve(binned.bins.last_t, np.cumsum(value), np.sqrt(np.cumsum(error**2)))


def rate_and_distortion(binned: Binned, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Nats sent until the receiver knows x_t, and the root mean squared error of its x0_hat.

    x_t is known once L_T and the terms of all noisier steps are sent (DDPM, Ho et al. 2020, section 4.3).
    Within a bin the rate is averaged over its steps, as the error is.
    """
    sent_before, _ = parts(binned)
    above = prior + _sum_from_right(sent_before) - sent_before
    inside = binned.mean * (binned.bins.size - 1) / 2
    return above + inside, np.sqrt(binned.mse)


def gap(held_out: Binned, train: Binned) -> Curve:
    """By how much the terms of each bin add up to more on held-out data, for the same bins."""
    value, error = parts(held_out)
    other, other_error = parts(train)
    return Curve(held_out.bins.centre, value - other, np.hypot(error, other_error))


def relative_gap(held_out: Binned, train: Binned) -> Curve:
    """Like :func:`gap`, as a fraction of the training value; the error is that of a ratio, to first order."""
    ratio = held_out.mean / train.mean
    error = np.abs(ratio) * np.hypot(held_out.stderr / held_out.mean, train.stderr / train.mean)
    return Curve(held_out.bins.centre, ratio - 1.0, error)


def parts(binned: Binned) -> tuple[np.ndarray, np.ndarray]:
    """What each bin adds to the bound, and its error."""
    return binned.bins.size * binned.mean, binned.bins.size * binned.stderr


def _sum_from_right(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values[::-1])[::-1]


def _log_edges(t: np.ndarray, per_decade: int) -> np.ndarray:
    """Steps 2 = first < ... < K + 1, at most so many to a factor of ten in t; empty for K = 1."""
    K = len(t)
    if K <= SINGLE_STEPS:
        return np.arange(2, K + 2) if K > 1 else np.array([], dtype=int)
    number = max(2, round(per_decade * np.log10((t[-1] + 1) / t[1])) + 1)
    edges = np.geomspace(t[1], t[-1] + 1, number).round()
    return np.unique(np.searchsorted(t, edges) + 1)
