"""Draws that are spread evenly over the chain and over the data set, and the variance of their sums."""

from functools import lru_cache

import torch
from torch import Tensor

from nelbo.randomness import generator

TREND_DRAWS = 24  # with neighbouring timesteps, to which a line is fitted


def deviations_of_sum(parts: Tensor) -> Tensor | None:
    """Deviations (B, R, ...) of R independent, equally distributed parts from their mean.

    They are scaled so that the sum of their squares over R estimates the variance of the sum of the parts.
    None for a single part, whose variance is not known.
    """
    R = parts.shape[1]
    if R == 1:
        return None
    return (R / max(R - 1, 1)) ** 0.5 * (parts - parts.mean(dim=1, keepdim=True))


def deviations_over_ranges(weighted: Tensor) -> Tensor | None:
    """Deviations (B, R, ...), as of :func:`deviations_of_sum`, of :func:`paired_stratified_draws`.

    None for a single draw, whose variance is not known.
    """
    size = torch.bincount(ranges_of(weighted.shape[1])).tolist()
    deviations = [deviations_of_sum(part) for part in weighted.split(size, dim=1)]
    known = [deviation for deviation in deviations if deviation is not None]
    if len(known) < len(deviations):
        return None
    return torch.cat(known, dim=1) if known else weighted


def ranges_of(draws: int) -> Tensor:
    """Range of each draw, (draws,) int64: two draws per range, three in the last if the number is odd."""
    return (torch.arange(draws) // 2).clamp(max=max(draws // 2 - 1, 0))


def paired_stratified_draws(num_examples: int, draws: int, *key: int | str) -> tuple[Tensor, Tensor]:
    """Draws for each example, and the share of [0, 1) that each represents.

    Returns:
        (num_examples, draws) float64 in [0, 1), in the order of their ranges, the draws of one range
        independent of each other; and (draws,) float64, shares that add up to 1.
    """
    ranges = ranges_of(draws)
    size = torch.bincount(ranges)
    within = torch.arange(draws) - 2 * ranges  # first, second or third of its range
    columns = [
        stratified_draws(num_examples, len(size), *key, number)[:, ranges[within == number]]
        for number in range(3)
    ]
    order = torch.cat([(within == number).nonzero().flatten() for number in range(3)]).argsort()
    return torch.cat(columns, dim=1)[:, order], 1.0 / (len(size) * size[ranges].double())


@lru_cache(maxsize=4)
def stratified_draws(num_examples: int, draws: int, *key: int | str) -> Tensor:
    """(num_examples, draws) float64 in [0, 1): a draw in each of ``draws`` equal ranges for each example.

    Within each range the examples are spread evenly as well, in random order.
    """
    source = generator(*key, num_examples, draws)
    order = torch.rand(num_examples, draws, generator=source, dtype=torch.float32).argsort(dim=0)
    offset = torch.rand(draws, generator=source, dtype=torch.float64)
    within = (order + offset) / num_examples
    return ((torch.arange(draws) + within) / max(draws, 1)).clamp(max=1.0 - 2.0**-53)


def without_trend(steps: Tensor, nats: Tensor) -> Tensor:
    """Differences of draws from the mean curve along the chain, (N, R) float64.

    The curve is a line in log t in each group of draws with neighbouring timesteps. Each draw is compared
    with the line through the other draws of its group, so the differences of the draws of one example have
    the covariance of the draws themselves, and variances that are larger by about 2 / TREND_DRAWS. Fewer
    than four draws are returned unchanged.

    Args:
        steps: (N, R) int64 or float64, number of the step of each draw, from 2.
        nats: (N, R) float64, the draws.
    """
    order = steps.flatten().argsort(stable=True)
    if len(order) < 4:
        return nats
    x, y = steps.flatten()[order].double().log(), nats.flatten()[order]
    groups = max(1, len(order) // TREND_DRAWS)
    group = torch.arange(len(order), device=x.device) * groups // len(order)
    size = torch.bincount(group).double()

    def mean(values: Tensor) -> Tensor:
        return (torch.zeros_like(size).index_add_(0, group, values) / size)[group]

    x, y = x - mean(x), y - mean(y)
    spread_of_x = mean(x.square()).clamp(min=torch.finfo(torch.float64).tiny)  # 0 if all x are equal
    residual = y - mean(x * y) / spread_of_x * x
    leverage = (1.0 + x.square() / spread_of_x) / size[group]
    alone = leverage > 0.5  # the only draw, or nearly, at its end of the line: compared with the mean
    residual = torch.where(alone, y, residual) / (1.0 - torch.where(alone, 1.0 / size[group], leverage))
    return torch.empty_like(y).scatter_(0, order, residual).view_as(nats)
