import mpmath
import pytest
import torch

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.level import (
    NoiseLevel,
    data_level,
    mean_per_example,
    per_example,
    scale,
    sum_per_example,
)
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule, LinearSchedule, SigmoidSchedule

SCHEDULES = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "sigmoid": SigmoidSchedule,
    "linear_logsnr": LinearLogSNRSchedule,
}


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("alpha_bar", lambda x: 1 / (1 + mpmath.exp(-x))),
        ("log_signal_var", lambda x: -mpmath.log1p(mpmath.exp(-x))),
        ("log_noise_var", lambda x: -mpmath.log1p(mpmath.exp(x))),
        ("signal_scale", lambda x: 1 / mpmath.sqrt(1 + mpmath.exp(-x))),
        ("noise_scale", lambda x: 1 / mpmath.sqrt(1 + mpmath.exp(x))),
        ("snr", mpmath.exp),
    ],
)
def test_coefficients_are_accurate_at_all_levels(name, formula):
    logsnr = torch.linspace(-60, 60, 121, dtype=torch.float64)
    level = NoiseLevel(torch.zeros(121, dtype=torch.int64), logsnr)
    expected = [float(formula(mpmath.mpf(x))) for x in logsnr.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(getattr(level, name), expected, rtol=2e-14, atol=0)


def test_the_level_of_data_has_no_noise():
    level = data_level(NoiseLevel(torch.tensor([3, 4]), torch.zeros(2, dtype=torch.float64)))
    assert level.t.tolist() == [0, 0]
    assert level.signal_scale.tolist() == [1, 1]
    assert level.noise_scale.tolist() == [0, 0]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [25, 1000])
def test_variances_of_a_step_equal_the_definition(name, T, textbook_betas):
    """beta and beta-tilde, from betas and their cumulated products instead of logsnr."""
    step = Chain(SCHEDULES[name](T, logsnr_max="paper")).step(torch.arange(1, T + 1))
    betas = textbook_betas(name, T)
    beta_tildes, alpha_bar = [], mpmath.mpf(1)
    for beta in betas:
        before, alpha_bar = alpha_bar, alpha_bar * (1 - beta)
        beta_tildes.append(beta * (1 - before) / (1 - alpha_bar))
    log_beta = torch.tensor([float(mpmath.log(beta)) for beta in betas], dtype=torch.float64)
    log_beta_tilde = torch.tensor([float(mpmath.log(b)) for b in beta_tildes[1:]], dtype=torch.float64)
    # a logarithm off by 1e-10 is a variance off by 1e-10 of itself
    torch.testing.assert_close(step.log_beta, log_beta, rtol=0, atol=1e-10)
    torch.testing.assert_close(step.log_beta_tilde[1:], log_beta_tilde, rtol=0, atol=1e-10)
    torch.testing.assert_close(step.log_beta_tilde_next[:-1], log_beta_tilde, rtol=0, atol=1e-10)


def test_the_first_step_ends_in_data():
    step = Chain(CosineSchedule(10)).step(torch.tensor([1, 2]))
    assert step.is_first.tolist() == [True, False]
    assert step.s.t.tolist() == [0, 1]
    assert step.step_noise_fraction[0] == 1
    assert step.log_beta[0] == step.t.log_noise_var[0]
    assert step.log_beta_tilde[0] == -torch.inf


def test_scale_multiplies_each_example_by_its_coefficient():
    image = torch.ones(2, 3, 4, 4)
    coefficient = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert per_example(coefficient, image).shape == (2, 1, 1, 1)
    assert per_example(coefficient[0], image).shape == ()
    assert per_example(image, image) is image
    scaled = scale(coefficient, image)
    assert scaled.dtype == torch.float32
    assert sum_per_example(scaled).tolist() == [48, 96]
    assert mean_per_example(scaled).tolist() == [1, 2]
