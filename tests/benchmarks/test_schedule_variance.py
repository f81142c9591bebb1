import pytest
import torch

from benchmarks.schedule_variance import statistics


def test_the_variance_between_levels_is_separated_from_that_at_a_level():
    source = torch.Generator().manual_seed(0)
    u = torch.rand(100, 1000, generator=source, dtype=torch.float64)
    nats = 5.0 + 2.0 * (u > 0.5) + 3.0 * torch.randn(u.shape, generator=source, dtype=torch.float64)
    assert statistics(u, nats).tolist() == pytest.approx([6.0, 10.0**0.5, 1.0], rel=0.02)
