import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, LearnedVariance

T = 10
CHAIN = Chain(CosineSchedule(T, logsnr_max="paper"))
STEP = CHAIN.step(torch.arange(1, T + 1))
BETA_1 = STEP.t.log_noise_var[0]
BETA_TILDE_2 = STEP.log_beta_tilde[1]


def var_output(value, size=T):
    return torch.full((size, 2, 3), value, dtype=torch.float64)


@pytest.mark.parametrize("timesteps", [[1], [T], [4, T], list(range(1, T + 1))])
@pytest.mark.parametrize("first_step", ["beta", "beta_tilde"])
def test_every_step_of_every_chain_has_a_variance(make_variance, first_step, timesteps):
    chain = Chain(CHAIN.schedule, torch.tensor(timesteps))
    variance = make_variance(first_step=first_step)
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    log_var = variance.log_var(
        step, var_output(0.3, chain.num_steps) if isinstance(variance, LearnedVariance) else None
    )
    assert log_var.dtype == torch.float64
    assert log_var.isfinite().all()
    assert len(log_var) == chain.num_steps


@pytest.mark.parametrize(("first_step", "expected"), [("beta", BETA_1), ("beta_tilde", BETA_TILDE_2)])
@pytest.mark.parametrize("cls", [FixedLarge, FixedSmall])
def test_fixed_variances(cls, first_step, expected):
    log_var = cls(first_step).log_var(STEP, None)
    torch.testing.assert_close(log_var[0], expected, rtol=1e-14, atol=0)
    assert torch.equal(log_var[1:], (STEP.log_beta if cls is FixedLarge else STEP.log_beta_tilde)[1:])


@pytest.mark.parametrize(("first_step", "low"), [("beta", BETA_1), ("beta_tilde", BETA_TILDE_2)])
def test_learned_range_interpolates_the_logarithms(first_step, low):
    variance = LearnedRange(first_step)
    low = torch.cat([low[None], STEP.log_beta_tilde[1:]])[:, None, None].expand(T, 2, 3)
    high = STEP.log_beta[:, None, None].expand(T, 2, 3)
    torch.testing.assert_close(variance.log_var(STEP, var_output(-1.0)), low)
    torch.testing.assert_close(variance.log_var(STEP, var_output(1.0)), high)
    torch.testing.assert_close(variance.log_var(STEP, var_output(0.0)), (low + high) / 2)


def test_beta_tilde_of_a_single_step_is_beta_1():
    step = Chain(CHAIN.schedule, torch.tensor([6])).step(torch.tensor([1]))
    for cls in (FixedLarge, FixedSmall):
        assert torch.equal(cls("beta_tilde").log_var(step, None), step.t.log_noise_var)
    learned = LearnedRange("beta_tilde").log_var(step, var_output(0.3, 1))
    torch.testing.assert_close(learned, step.t.log_noise_var.expand(1, 2, 3))


def test_an_unknown_first_step_raises(make_variance):
    with pytest.raises(ValueError, match=r"variance\.first_step=small: expected one of .*beta, beta_tilde"):
        make_variance(first_step="small")
