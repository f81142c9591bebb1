"""Curves from a step table: bins of log t, cumulative sums, rate and distortion, and gaps.

Steps are numbered 1..K from the clean end. On a full chain step i is t = i, on a shorter one it is the i-th t
of the chain. The bound is a sum over steps, so the weight of a bin is its number of steps.

A bin consists of strata: ranges of steps that are as narrow as the number of draws permits, so that L_t is
almost constant in them. The mean of a stratum is the sum over all of its draws, divided by their number, and
its error comes from the sums of squares. So every draw has the same weight within a stratum. The mean of a
bin weights its strata by their number of steps, so that a nonuniform timestep sampler, such as importance
sampling, adds no bias. Values are nats per example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nelbo.evaluation.step_table import StepTable

STRATA_PER_DECADE = 40
SINGLE_STEPS = 64  # chains of at most this length have one bin per step


@dataclass(frozen=True)
class Bins:
    """Ranges of steps that cover 1..K without gaps; the first is step 1 alone, which is L_0.

    Attributes:
        t: (K,) timestep of each step.
        first: (B,) lowest step of each bin.
        last: (B,) highest step of each bin.
        strata: lowest step of each stratum, including all of ``first``; None if every bin is one stratum.
    """

    t: np.ndarray
    first: np.ndarray
    last: np.ndarray
    strata: np.ndarray | None = None

    @property
    def size(self) -> np.ndarray:
        """(B,) number of steps in each bin."""
        return self.last - self.first + 1

    @property
    def first_t(self) -> np.ndarray:
        """(B,) lowest t of each bin."""
        return self.t[self.first - 1]

    @property
    def last_t(self) -> np.ndarray:
        """(B,) highest t of each bin."""
        return self.t[self.last - 1]

    @property
    def centre(self) -> np.ndarray:
        """(B,) centre of each bin on a logarithmic axis."""
        return np.sqrt(self.first_t * self.last_t)

    @property
    def edges(self) -> np.ndarray:
        """(B + 1,) edges of the bins, halfway between neighbouring t."""
        between = 0.5 * (self.last_t[:-1] + self.first_t[1:])
        return np.concatenate([[self.first_t[0] - 0.5], between, [self.last_t[-1] + 0.5]])


@dataclass(frozen=True)
class BinnedCurve:
    """(B,) a value for each bin, and its standard error."""

    t: np.ndarray
    value: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Binned:
    """Statistics of the draws in each bin, each of shape (B,).

    Attributes:
        bins: the ranges of steps.
        count: number of draws.
        mean: mean of L_t per step, nats.
        stderr: standard error of the mean, nats; NaN for fewer than two draws.
        mse: mean squared error of x0_hat; NaN if it was not measured.
        interpolation: mean v of a learned variance between its limits; NaN for a fixed variance.
    """

    bins: Bins
    count: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    mse: np.ndarray
    interpolation: np.ndarray


def log_bins(tables: Sequence[StepTable], per_decade: int = 8, at_least: int = 8) -> Bins:
    """Bins of equal width in log t, wider where a table has too few draws.

    Args:
        tables: step tables of one chain, which get the same bins.
        per_decade: number of bins per factor of ten in t; fewer where there are not so many steps.
        at_least: minimum number of draws of a stratum in every table.
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
        strata.pop()  # merge the rest into the previous stratum
    starts = np.array(strata)
    # a bin starts at the first stratum at or after its nominal edge
    after = np.searchsorted(starts, _log_edges(t, per_decade))
    first = np.unique(np.concatenate([starts[:2], starts[after[after < len(starts)]]]))
    return Bins(t, first, np.append(first[1:], len(t) + 1) - 1, starts)


def binned(terms: StepTable, bins: Bins) -> Binned:
    """Pool the draws of each stratum; average the strata of a bin, weighted by their number of steps."""
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


def from_noise(binned: Binned, prior: float) -> BinnedCurve:
    """L_T plus the terms of all steps from T down to the lowest t of each bin, nats; ends at the bound."""
    value, error = parts(binned)
    total, total_error = _sum_from_right(value), np.sqrt(_sum_from_right(error**2))
    return BinnedCurve(binned.bins.first_t, prior + total, total_error)


def from_data(binned: Binned) -> BinnedCurve:
    """The terms of all steps from 1 up to the highest t of each bin, nats; ends at the bound minus L_T."""
    value, error = parts(binned)
    return BinnedCurve(binned.bins.last_t, np.cumsum(value), np.sqrt(np.cumsum(error**2)))


def rate_and_distortion(binned: Binned, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Rate, the nats that encode x_t, and distortion, the root mean squared error of x0_hat given x_t.

    The rate is L_T plus the terms of all noisier steps (DDPM, Ho et al. 2020, section 4.3). Both are averaged
    over the steps of a bin.
    """
    sent_before, _ = parts(binned)
    above = prior + _sum_from_right(sent_before) - sent_before
    inside = binned.mean * (binned.bins.size - 1) / 2
    return above + inside, np.sqrt(binned.mse)


def gap(held_out: Binned, train: Binned) -> BinnedCurve:
    """Contribution of each bin on held-out data minus that on training data, nats."""
    value, error = parts(held_out)
    other, other_error = parts(train)
    return BinnedCurve(held_out.bins.centre, value - other, np.hypot(error, other_error))


def relative_gap(held_out: Binned, train: Binned) -> BinnedCurve:
    """The gap as a fraction of the training value, with the first-order error of a ratio."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a decoder may make L_0 exactly 0: no fraction
        ratio = held_out.mean / train.mean
        error = np.abs(ratio) * np.hypot(held_out.stderr / held_out.mean, train.stderr / train.mean)
    return BinnedCurve(held_out.bins.centre, ratio - 1.0, error)


def parts(binned: Binned) -> tuple[np.ndarray, np.ndarray]:
    """(B,) contribution of each bin to the bound, and its standard error, nats."""
    return binned.bins.size * binned.mean, binned.bins.size * binned.stderr


def _sum_from_right(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values[::-1])[::-1]


def _log_edges(t: np.ndarray, per_decade: int) -> np.ndarray:
    """Edges 2 < ... < K + 1 of bins, in steps, ``per_decade`` per factor of ten in t; empty for K = 1."""
    K = len(t)
    if K <= SINGLE_STEPS:
        return np.arange(2, K + 2) if K > 1 else np.array([], dtype=int)
    number = max(2, round(per_decade * np.log10((t[-1] + 1) / t[1])) + 1)
    edges = np.geomspace(t[1], t[-1] + 1, number).round()
    return np.unique(np.searchsorted(t, edges) + 1)
