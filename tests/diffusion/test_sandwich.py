"""Bounds of log p from both sides on samples of a chain, against linear Gaussian chains in closed form."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, full_chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser
from nelbo.diffusion.likelihood import log_mean_weight, log_weight, sample_chain
from nelbo.diffusion.process import posterior_coefficients
from nelbo.diffusion.schedules import LinearLogSNRSchedule, RectifiedFlowSchedule
from nelbo.diffusion.spacings import Even
from nelbo.diffusion.variances import FixedLarge, FixedSmall

SCHEDULE = LinearLogSNRSchedule(1000, logsnr_max=4.0, logsnr_min=-6.0)
CHAIN = Chain(SCHEDULE, torch.tensor([1, 300, 650, 1000]))
K, STD, DIMS = CHAIN.num_steps, 0.5, 2
DENOISE = gaussian_denoiser((DIMS,), STD, FixedLarge())
BOUND = VariationalBound(CHAIN, GaussianDecoder())
ENTROPY = 0.5 * (1.0 + math.log(2.0 * math.pi))  # of N(0, 1)


def noise(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=g, dtype=torch.float64)


@dataclass(frozen=True)
class Exact:
    """Values of one dimension of samples of the chain, in nats: E log p, and its bounds."""

    log_p: float
    lower: float
    upper: float
    variance: float  # of x_0


def exact() -> Exact:
    """Every variable of the chain as coefficients of independent standard normal ones."""
    steps = [CHAIN.step(torch.tensor(i)) for i in range(1, K + 1)]
    gains = [float(s.t.signal_scale * STD**2 / (s.t.alpha_bar * STD**2 + s.t.noise_scale**2)) for s in steps]
    reverse = []  # x_s = slope x_t + sqrt(var) e
    for step, gain in zip(steps, gains, strict=True):
        from_xt, from_x0 = map(float, posterior_coefficients(step))
        reverse.append((from_xt + from_x0 * gain, float(FixedLarge().log_var(step, None).exp())))
    forward = [(float(steps[0].t.signal_scale), float(steps[0].t.noise_scale ** 2))]
    for step in steps[1:]:
        ratio = float(step.t.signal_scale / step.s.signal_scale)
        forward.append((ratio, float(step.log_beta.exp())))

    p = [torch.eye(K + 1, dtype=torch.float64)[K]]  # x_K, ..., then x_0 first
    for i in range(K, 0, -1):
        slope, var = reverse[i - 1]
        p.insert(0, slope * p[0] + math.sqrt(var) * torch.eye(K + 1, dtype=torch.float64)[i - 1])
    variance = float(p[0].square().sum())
    q = [math.sqrt(variance) * torch.eye(K + 1, dtype=torch.float64)[0]]
    for i in range(1, K + 1):
        slope, var = forward[i - 1]
        q.append(slope * q[-1] + math.sqrt(var) * torch.eye(K + 1, dtype=torch.float64)[i])

    def mean_log(x: list[Tensor]) -> float:
        """E log p(x_0, z) - log q(z | x_0) for variables with these coefficients."""
        total = -0.5 * (math.log(2.0 * math.pi) + float(x[K].square().sum()))
        for i in range(1, K + 1):
            for (slope, var), of, given, sign in (
                (reverse[i - 1], x[i - 1], x[i], 1.0),
                (forward[i - 1], x[i], x[i - 1], -1.0),
            ):
                square = float((of - slope * given).square().sum())
                total -= sign * 0.5 * (math.log(2.0 * math.pi * var) + square / var)
        return total

    return Exact(-ENTROPY - 0.5 * math.log(variance), mean_log(q), mean_log(p), variance)


def bounds(n, trajectories=1, bound=BOUND, denoise=DENOISE, dims=DIMS, seed=0):
    """The samples, and lower and upper estimates of log p of each of them."""
    source = noise(n, dims, seed=seed)
    drawn = sample_chain(bound, denoise, source)
    others = torch.stack([log_weight(bound, denoise, drawn.x0, source) for _ in range(trajectories)])
    return drawn.x0, log_mean_weight(others), log_mean_weight(torch.cat([drawn.log_weight[None], others[1:]]))


def test_samples_have_the_variance_of_the_chain():
    x0, _, _ = bounds(40_000)
    ratio = x0.square().mean().item() / exact().variance
    assert ratio == pytest.approx(1.0, abs=4 * math.sqrt(2 / 80_000))


def test_sandwich_holds_in_300_of_300_repeats():
    n, repeats, known = 64, 300, exact()
    _, lower, upper = (value.view(repeats, -1) for value in bounds(n * repeats))
    for values, sign in ((lower, 1.0), (upper, -1.0)):
        stderr = values.std(1) / math.sqrt(n)
        assert (sign * (values.mean(1) - DIMS * known.log_p) < 4 * stderr).all()


def test_both_sides_equal_their_closed_forms():
    known = exact()
    assert known.lower < known.log_p - 0.05
    assert known.upper > known.log_p + 0.05
    _, lower, upper = bounds(20_000)
    for values, expected in ((lower, known.lower), (upper, known.upper)):
        stderr = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - DIMS * expected) < 4 * stderr < 0.05


def test_more_trajectories_tighten_both_sides():
    log_p = DIMS * exact().log_p
    found = [bounds(10_000, trajectories) for trajectories in (1, 8)]
    (_, lower, upper), (_, lower_8, upper_8) = found
    stderr = max((values.std() / 100).item() for values in (lower_8, upper_8))
    assert lower.mean() + 4 * stderr < lower_8.mean() < log_p + 4 * stderr
    assert upper.mean() - 4 * stderr > upper_8.mean() > log_p - 4 * stderr


def test_exact_chain_has_no_gap():
    """fixed_large and N(0, I) data: p(z | x_0) = q(z | x_0), and every log weight is log p."""
    x0, lower, upper = bounds(50, 2, denoise=gaussian_denoiser((DIMS,), 1.0, FixedLarge()))
    log_p = Normal(0.0, 1.0).log_prob(x0).sum(1)
    torch.testing.assert_close(lower, log_p)
    torch.testing.assert_close(upper, log_p)


def test_quantised_samples_have_the_probabilities_of_the_decoder():
    """The decoder's Gaussian is integrated over bins, so x_0 is a rounded draw of the continuous chain."""
    levels, n = 5, 20_000
    bound = VariationalBound(CHAIN, DiscretizedGaussian(levels))
    denoise = gaussian_denoiser((1,), STD, FixedLarge())
    x0, lower, upper = bounds(n, 1, bound, denoise, dims=1)
    edges = Normal(0.0, math.sqrt(exact().variance)).cdf(torch.tensor([-0.75, -0.25, 0.25, 0.75]).double())
    p = torch.cat([edges[:1], edges.diff(), 1.0 - edges[-1:]])
    frequency = (x0 == torch.linspace(-1, 1, levels, dtype=torch.float64)).double().mean(0)
    assert ((frequency - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    log_p = (p * p.log()).sum()
    assert lower.mean() < log_p < upper.mean()
    # the mean of exp(-log w) over the posterior is 1 / P(x_0)
    for level, probability in zip(torch.linspace(-1, 1, levels).double(), p, strict=True):
        inverse = (-upper[x0[:, 0] == level]).exp()
        assert inverse.mean().item() == pytest.approx(1 / probability.item(), rel=0.1)


def test_clipping_is_part_of_the_chain():
    """The clipped chain is another model, whose samples have a sandwich of their own."""
    clipped = VariationalBound(CHAIN, GaussianDecoder(), clip=(-0.2, 0.2))
    x0, lower, upper = bounds(4000, 4, clipped)
    assert x0.std() < 0.8 * math.sqrt(exact().variance)
    difference = upper - lower
    assert difference.mean() > 4 * difference.std() / math.sqrt(4000)


def test_no_signal_at_the_end_is_finite():
    bound = VariationalBound(Even().chain(RectifiedFlowSchedule(None), 6), GaussianDecoder())
    _, lower, upper = bounds(20, 2, bound, gaussian_denoiser((2,), STD, FixedSmall()))
    assert lower.isfinite().all()
    assert upper.isfinite().all()


def test_continuous_time_has_no_samples():
    continuous = VariationalBound(full_chain(LinearLogSNRSchedule(None)), GaussianDecoder())
    with pytest.raises(ValueError, match="a chain of finitely many steps is needed"):
        sample_chain(continuous, DENOISE, noise(2, 2))
