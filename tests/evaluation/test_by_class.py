"""The bound of each class, and its mean over the classes."""

import math

import pytest
import torch

from nelbo.evaluation.accumulator import BoundAccumulator, Draws
from nelbo.evaluation.by_class import bound_by_class
from nelbo.evaluation.t_bins import t_bins

N, K, ROUNDS = 60, 40, 2


@pytest.fixture
def accumulator() -> BoundAccumulator:
    """Random terms of a chain of 40 steps, every step of every example, twice."""
    generator = torch.Generator().manual_seed(0)
    accumulator = BoundAccumulator(K, num_examples=N, groups=t_bins(torch.arange(1, K + 1)))
    steps = torch.arange(1, K + 1).expand(N, K)
    for _ in range(ROUNDS):
        nats = torch.rand(N, K, generator=generator, dtype=torch.float64) * torch.arange(1, N + 1)[:, None]
        prior = torch.rand(N, generator=generator, dtype=torch.float64)
        accumulator.add(Draws(steps, torch.ones(N, K), nats, prior), torch.arange(N))
    return accumulator


LABEL = torch.arange(N) ** 2 % 7  # 0, 1, 2 and 4, of unequal size


def test_class_means_average_to_the_mean_of_all(accumulator):
    whole, found = accumulator.estimate(ROUNDS), bound_by_class(accumulator.example_table(ROUNDS), LABEL)
    assert list(found) == [0, 1, 2, 4]
    counts = [bound.num_examples for bound in found.values()]
    assert counts == torch.bincount(LABEL)[[0, 1, 2, 4]].tolist()
    for part in ("total", "reconstruction", "denoising", "prior"):
        parts = [getattr(bound, part) for bound in found.values()]
        expected = getattr(whole, part)
        mean = sum(n * x.mean for n, x in zip(counts, parts, strict=True)) / N
        assert mean == pytest.approx(expected.mean, rel=1e-12)
        # the spread of the whole is that within the classes and that between them
        within = sum((n - 1) * n * x.stderr**2 for n, x in zip(counts, parts, strict=True))
        between = sum(n * (x.mean - mean) ** 2 for n, x in zip(counts, parts, strict=True))
        assert math.sqrt((within + between) / (N - 1) / N) == pytest.approx(expected.stderr, rel=1e-9)


def test_stderr_of_a_class_of_one_example_is_nan(accumulator):
    label = torch.zeros(N, dtype=torch.int64)
    label[3] = 5
    found = bound_by_class(accumulator.example_table(ROUNDS), label)
    assert found[5].total.mean == pytest.approx(accumulator.example_table(ROUNDS)[3].sum().item())
    assert all(math.isnan(part.stderr) for part in found[5].parts)
