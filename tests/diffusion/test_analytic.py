"""The best fixed variance: optimal, and the published formula, where the denoiser is exact."""

import math

import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.exact import posterior_variance
from nelbo.diffusion.process import posterior_coefficients
from nelbo.diffusion.schedules import CosineSchedule, LinearSchedule
from nelbo.diffusion.variances import Analytic, FixedLarge, FixedSmall

T = 50
SCHEDULES = [CosineSchedule(T), LinearSchedule(T)]
CHAINS = [None, torch.tensor([3, 4, 20, 50]), torch.tensor([50])]


def analytic(schedule, std, **options) -> Analytic:
    return Analytic(posterior_variance(schedule.level(torch.arange(1, T + 1)), std).log(), **options)


def expected_terms(chain, log_var, std) -> torch.Tensor:
    """Expected L_0, L_2, ..., L_K per dimension of N(0, std^2) data and its exact denoiser, (K,)."""
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    mse = posterior_variance(step.t, std)
    r, (_, from_x0) = log_var - step.log_beta_tilde, posterior_coefficients(step)
    kl = 0.5 * (r - 1 + (-r).exp() + from_x0**2 * mse * (-log_var).exp())
    reconstruction = 0.5 * (math.log(2 * math.pi) + log_var + mse * (-log_var).exp())
    return torch.where(step.is_first, reconstruction, kl)


@pytest.mark.parametrize("timesteps", CHAINS, ids=["full", "short", "one step"])
@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
def test_no_other_variance_has_a_lower_term_at_any_step(schedule, std, timesteps):
    chain = Chain(schedule, timesteps)
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    best = analytic(schedule, std).log_var(step, None)
    terms = expected_terms(chain, best, std)
    for shift in (-0.1, -1e-3, 1e-3, 0.1):
        # near the optimum a term rises with the square of the shift, at least 1/4 of it per dimension
        risen = expected_terms(chain, best + shift, std) - terms
        assert (risen > 0.2 * shift**2 * (1 if abs(shift) > 0.01 else 0.99)).all()
    for fixed in (FixedSmall(), FixedLarge()):
        assert (terms <= expected_terms(chain, fixed.log_var(step, None), std) + 1e-12).all()


@pytest.mark.parametrize("timesteps", CHAINS, ids=["full", "short", "one step"])
def test_for_standard_normal_data_it_is_the_forward_variance(timesteps):
    """DDPM, section 3.2: it is optimal for N(0, I)."""
    chain = Chain(SCHEDULES[0], timesteps)
    step = chain.step(torch.arange(1, chain.num_steps + 1))
    log_var = analytic(SCHEDULES[0], 1.0).log_var(step, None)
    torch.testing.assert_close(log_var, FixedLarge().log_var(step, None), rtol=1e-12, atol=1e-12)


def test_it_is_the_theorem_where_the_denoiser_is_exact():
    """Bao et al. 2022, theorem 1, for DDPM's forward process (lambda^2 = beta-tilde)."""
    std, schedule = 0.5, SCHEDULES[1]
    step = Chain(schedule).step(torch.arange(2, T + 1))
    alpha_bar_s, alpha_bar_t = step.s.alpha_bar, step.t.alpha_bar
    beta_bar_s, beta_bar_t = 1 - alpha_bar_s, 1 - alpha_bar_t
    lam2 = step.log_beta_tilde.exp()
    # the exact eps_hat of N(0, std^2) data is linear in x_t
    eps_norm = beta_bar_t / (alpha_bar_t * std**2 + beta_bar_t)
    root = (beta_bar_t / (alpha_bar_t / alpha_bar_s)).sqrt() - (beta_bar_s - lam2).sqrt()
    expected = lam2 + root.square() * (1 - eps_norm)
    actual = analytic(schedule, std).log_var(step, None).exp()
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("first_step", ["beta", "beta_tilde"])
def test_first_step_is_as_in_the_other_variances(first_step):
    chain = Chain(SCHEDULES[0])
    step = chain.step(torch.arange(1, T + 1))
    borrowed = analytic(SCHEDULES[0], 0.5, first_step=first_step).log_var(step, None)
    assert borrowed[0] == FixedSmall(first_step).log_var(step, None)[0]
    assert torch.equal(borrowed[1:], analytic(SCHEDULES[0], 0.5).log_var(step, None)[1:])
