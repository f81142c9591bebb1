"""Measured moments equal those of the exact denoiser, and do not depend on the batching."""

import pytest
import torch

from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser, posterior_variance
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import FixedSmall
from nelbo.evaluation.log_linear import log_linear
from nelbo.evaluation.moments import measure_log_mse

DIMS, STD = 8, 0.5


def batch(n) -> Batch:
    x0 = STD * torch.randn(n, DIMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(x0, None, torch.arange(n))


def measured(schedule, n=500, clip=None, **options) -> torch.Tensor:
    bound = VariationalBound(Chain(schedule), GaussianDecoder(), clip)
    return measure_log_mse(bound, gaussian_denoiser((DIMS,), STD, FixedSmall()), batch(n), **options)


@pytest.mark.parametrize("schedule", [CosineSchedule(300), LinearSchedule(1000)], ids=["cosine", "linear"])
def test_moments_equal_the_closed_form(schedule):
    level = schedule.level(torch.arange(1, schedule.num_steps + 1))
    gap = (measured(schedule) - posterior_variance(level, STD).log()).abs()
    # 64 draws of 8 dimensions share a mean, which scatters by sqrt(2 / 512) = 0.06; 5 times that
    assert gap.max() < 0.31
    assert gap.square().mean() < 0.07**2


@pytest.mark.slow
def test_the_size_of_the_calls_does_not_matter():
    first, second = (measured(CosineSchedule(50), n=60, pairs_per_call=size) for size in (7, 512))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)


def test_a_chain_of_one_step_has_one_moment():
    level = CosineSchedule(1).level(torch.tensor([1]))
    expected = posterior_variance(level, STD).log()
    torch.testing.assert_close(measured(CosineSchedule(1)), expected, rtol=0, atol=0.1)


def test_x0_hat_is_clipped_as_in_the_bound():
    clipped = measured(CosineSchedule(50), clip=(-0.01, 0.01))
    assert clipped[0] > measured(CosineSchedule(50))[0] + 1.0  # exact at t = 1, but for the clipping


def test_log_linear_recovers_a_line_in_the_logarithm():
    """From draws that are uneven, and missing at most steps."""
    t = torch.arange(200, dtype=torch.float64)
    curve = torch.exp(-3.0 + 0.02 * t)
    count = (t % 7 == 0).double() * (1 + t % 3)
    found = log_linear(count, count * curve, draws_per_bin=4)
    inside = slice(14, 186)  # beyond the outermost means it is constant
    torch.testing.assert_close(found[inside], curve[inside], rtol=0.02, atol=0)
