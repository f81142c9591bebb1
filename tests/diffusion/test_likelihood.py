"""The ODE log-likelihood and the importance-weighted bound against exact densities."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions import kl_divergence as kl_between

from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, full_chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.likelihood import (
    RK4,
    DecoderDequantization,
    ExactDivergence,
    HeunSolver,
    HutchinsonDivergence,
    NoDequantization,
    ProbabilityFlow,
    UniformDequantization,
    effective_sample_size,
    log_mean_weight,
    log_weight,
    variance_of_log_mean,
)
from nelbo.diffusion.parameterizations import V
from nelbo.diffusion.process import diffuse, posterior
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule, RectifiedFlowSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall

MEANS = torch.tensor([[-1.0, 0.5], [0.3, 0.3], [1.2, -0.7]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
WIDE = LinearLogSNRSchedule(1000, logsnr_max=18.4, logsnr_min=-20.0)  # sigma from 1e-4 to 22000
NO_PROBES = torch.zeros(0)


def mixture(std, dims=2):
    return MixtureSameFamily(
        Categorical(WEIGHTS), Independent(Normal(MEANS[:, :dims], torch.full((3, dims), std).double()), 1)
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def draws(*shape, seed=0):
    """A source of standard normal noise."""
    g = generator(seed)
    return lambda: torch.randn(*shape, generator=g, dtype=torch.float64)


def first_step(schedule, batch):
    return full_chain(schedule).step(torch.ones(batch, dtype=torch.int64))


def density(denoise, x0, solver, schedule=WIDE):
    """log p(x_0), (B,), of continuous data."""
    step = first_step(schedule, len(x0))
    point = NoDequantization().draw(x0, step, x0, lambda x: x)
    flow = ProbabilityFlow(denoise, schedule)
    log_prob = flow.log_prob(point.x, solver, ExactDivergence(), NO_PROBES).log_prob
    return log_prob[:, 0] + point.log_weight


# ------------------------------------------------------------------ probability-flow ODE


@pytest.mark.parametrize("std", [0.3, 1.0, 3.0])
def test_ode_is_the_density_of_a_gaussian(std):
    x0 = std * randn(32, 1)
    expected = Normal(0.0, std).log_prob(x0)[:, 0]
    found = density(gaussian_denoiser((1,), std, FixedLarge()), x0, RK4(80))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("std", "dims", "steps"), [(0.1, 1, 200), (0.1, 2, 200), (0.5, 2, 60)])
def test_ode_is_the_density_of_a_mixture(std, dims, steps):
    denoise = GaussianMixtureDenoiser(MEANS[:, :dims], WEIGHTS, std, FixedLarge())
    x0 = MEANS[torch.arange(12) % 3, :dims] + std * randn(12, dims)
    found = density(denoise, x0, RK4(steps))
    torch.testing.assert_close(found, mixture(std, dims).log_prob(x0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("solver", "order"), [(HeunSolver, 2), (RK4, 4)])
def test_error_of_a_solver_falls_with_its_order(solver, order):
    denoise = GaussianMixtureDenoiser(MEANS, WEIGHTS, 0.5, FixedLarge())
    x0 = randn(16, 2)
    exact = mixture(0.5).log_prob(x0)
    errors = [(density(denoise, x0, solver(steps)) - exact).abs().mean() for steps in (16, 32)]
    assert errors[0] / errors[1] > 2.0 ** (order - 0.4)


def test_coarser_solver_has_half_the_steps():
    coarser = RK4(7).coarser()
    assert isinstance(coarser, RK4)
    assert coarser.steps == 3
    with pytest.raises(ValueError, match=r"solver\.steps=1: use at least 2"):
        HeunSolver(1).coarser()


def test_evaluations_are_counted():
    calls = []

    def denoise(x, level, cond=None):
        calls.append(len(x))
        return gaussian_denoiser((1,), 1.0, FixedLarge())(x, level)

    flow = ProbabilityFlow(denoise, WIDE)
    for solver in (RK4(3), HeunSolver(4)):
        calls.clear()
        found = flow.log_prob(randn(5, 1), solver, ExactDivergence(), NO_PROBES)
        assert found.evaluations.tolist() == [len(calls)] * 5


def test_velocity_is_that_of_the_variance_exploding_form():
    """With y = x / signal: dx/dlog sigma = signal (y - D) - noise^2 x."""
    denoise = GaussianMixtureDenoiser(MEANS, WEIGHTS, 0.5, FixedLarge())
    x, log_sigma = randn(7, 2), torch.linspace(-4, 4, 7, dtype=torch.float64)
    level = NoiseLevel(WIDE.at_logsnr(-2 * log_sigma), -2 * log_sigma)
    signal, noise = level.signal_scale[:, None], level.noise_scale[:, None]
    expected = signal * (x / signal - denoise(x, level).x0_hat) - noise.square() * x
    torch.testing.assert_close(ProbabilityFlow(denoise, WIDE).velocity(x, log_sigma), expected)


def test_hutchinson_estimates_the_exact_divergence():
    denoise = GaussianMixtureDenoiser(MEANS, WEIGHTS, 0.3, FixedLarge())
    flow = ProbabilityFlow(denoise, WIDE)
    x = randn(6, 2)
    exact = flow.log_prob(x, RK4(10), ExactDivergence(), NO_PROBES).log_prob
    hutchinson = HutchinsonDivergence(40)
    probes = hutchinson.probes(draws(6, 2))
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    found = flow.log_prob(x, RK4(10), hutchinson, probes).log_prob
    assert found.shape == (6, 40)
    assert found.std(1).max() > 0.01
    stderr = found.std(1) / math.sqrt(40)
    assert ((found.mean(1) - exact[:, 0]).abs() < 4 * stderr + 1e-9).all()


def test_ode_of_a_network_ignores_the_other_examples():
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=generator())
    denoiser = Denoiser(_Unconditional(network), V(), FixedLarge())
    flow = ProbabilityFlow(denoiser, CosineSchedule(100))
    x = randn(4, 2).float()
    probes = HutchinsonDivergence(2).probes(draws(4, 2)).float()
    whole = flow.log_prob(x, RK4(10), HutchinsonDivergence(2), probes).log_prob
    with torch.no_grad():
        alone = flow.log_prob(x[2:3], RK4(10), HutchinsonDivergence(2), probes[:, 2:3]).log_prob
    torch.testing.assert_close(whole[2:3], alone, rtol=1e-5, atol=1e-5)


class _Unconditional(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, c, cond):
        return self.network(x)


# ------------------------------------------------------------------ levels between timesteps


def test_time_of_a_timestep_is_its_number(make_schedule):
    schedule = make_schedule(num_steps=50)
    t = torch.arange(1, 51)
    logsnr = schedule.table()[schedule.table().isfinite()]
    torch.testing.assert_close(schedule.at_logsnr(logsnr), t[: len(logsnr)].double())


def test_time_between_timesteps_is_linear_in_logsnr():
    schedule = CosineSchedule(50)
    table = schedule.table()
    found = schedule.at_logsnr(0.75 * table[:-1] + 0.25 * table[1:])
    torch.testing.assert_close(found, torch.arange(1, 50) + 0.25, check_dtype=False)
    assert CosineSchedule(1).at_logsnr(CosineSchedule(1).table()).tolist() == [1.0]


def test_ends_of_a_schedule_without_signal_are_finite():
    schedule = RectifiedFlowSchedule(20)
    assert schedule.table()[-1] == -torch.inf
    assert schedule.finite_ends() == (schedule.table()[0].item(), schedule.table()[-2].item())
    denoise = gaussian_denoiser((1,), 1.0, FixedLarge())
    found = density(denoise, randn(4, 1), RK4(10), schedule)
    assert found.isfinite().all()


# ------------------------------------------------------------------ dequantization

LEVELS = 5
COARSE = LinearLogSNRSchedule(1000, logsnr_max=3.0, logsnr_min=-20.0)


def probabilities(dequantization, decoder, num_draws=1000):
    """P of each level of one scalar and its standard error, by importance-weighted draws, (levels,) each."""
    values = torch.linspace(-1.0, 1.0, LEVELS, dtype=torch.float64)
    x0 = values.repeat_interleave(num_draws)[:, None]
    denoise = GaussianMixtureDenoiser(MEANS[:, :1], WEIGHTS, 0.4, FixedLarge())
    bound = VariationalBound(full_chain(COARSE), decoder)
    step = first_step(COARSE, len(x0))
    point = dequantization.draw(
        x0, step, randn(len(x0), 1), lambda x: bound.reconstruction(step, x0, denoise(x, step.t))
    )
    flow = ProbabilityFlow(denoise, COARSE)
    log_prob = flow.log_prob(point.x, RK4(60), ExactDivergence(), NO_PROBES).log_prob[:, 0]
    log_w = (log_prob + point.log_weight).view(LEVELS, num_draws).T
    variance = variance_of_log_mean(log_w)
    assert variance is not None
    return log_mean_weight(log_w).exp(), variance.sqrt() * log_mean_weight(log_w).exp(), denoise, bound


def clean_density(y):
    """p of x_1 / signal at y, which is data with noise of the cleanest level."""
    sigma = math.exp(-0.5 * 3.0)
    return mixture(math.hypot(0.4, sigma), 1).log_prob(y[..., None]).exp()


def test_uniform_dequantization_gives_the_mass_of_a_bin():
    found, stderr, _, _ = probabilities(UniformDequantization(LEVELS), DiscretizedGaussian(LEVELS))
    half_bin = 1.0 / (LEVELS - 1)
    for k, value in enumerate(torch.linspace(-1.0, 1.0, LEVELS).tolist()):
        y = torch.linspace(value - half_bin, value + half_bin, 2001, dtype=torch.float64)
        mass = torch.trapezoid(clean_density(y), y).item()
        assert abs(found[k].item() - mass) < 4 * stderr[k].item()


def test_decoder_dequantization_gives_the_probabilities_of_the_decoder():
    found, stderr, denoise, bound = probabilities(DecoderDequantization(), DiscretizedGaussian(LEVELS))
    y = torch.linspace(-5.0, 5.0, 4001, dtype=torch.float64)
    step = first_step(COARSE, len(y))
    x = step.t.signal_scale[:1, None] * y[:, None]
    prediction = denoise(x, step.t)
    total = 0.0
    for k, value in enumerate(torch.linspace(-1.0, 1.0, LEVELS, dtype=torch.float64)):
        likelihood = (-bound.reconstruction(step, value.expand(len(y), 1), prediction)).exp()
        mass = torch.trapezoid(clean_density(y) * likelihood, y).item()
        assert abs(found[k].item() - mass) < 4 * stderr[k].item()
        total += mass
    assert total == pytest.approx(1.0, abs=1e-6)


def test_uniform_dequantization_is_for_quantised_data():
    with pytest.raises(ValueError, match="dequantization=uniform is for quantised data"):
        UniformDequantization(None)


# ------------------------------------------------------------------ importance-weighted bound

STD = 0.5
SHORT = Chain(CosineSchedule(6))


def linear_map(step, std=STD):
    """The exact reverse step of N(0, std^2) data: the coefficient of x_t in its mean, and its variance."""
    one = torch.ones(1, 1, dtype=torch.float64)
    prediction = gaussian_denoiser((1,), std, FixedSmall())(one, step.t)
    mean = prediction.x0_hat if step.is_first.all() else posterior(prediction.x0_hat, one, step).mean
    return mean.item(), prediction.log_var(step).exp().item()


def model_joint():
    """p(x_0, x_1, ..., x_K) of the reverse chain of one scalar."""
    K = SHORT.num_steps
    covariance = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    covariance[K, K] = 1.0
    for i in range(K, 0, -1):
        factor, variance = linear_map(SHORT.step(torch.tensor([i])))
        covariance[i - 1, i:] = covariance[i:, i - 1] = factor * covariance[i, i:]
        covariance[i - 1, i - 1] = factor**2 * covariance[i, i] + variance
    return covariance


def data_posterior(x0):
    """q(x_1, ..., x_K | x_0) of one scalar: mean (K,) and covariance (K, K)."""
    steps = [SHORT.step(torch.tensor([i])) for i in range(1, SHORT.num_steps + 1)]
    signal = torch.cat([step.t.signal_scale for step in steps])
    variance = torch.cat([step.t.noise_scale for step in steps]).square()
    ratio = signal[None, :] / signal[:, None]  # from the cleaner to the noisier level
    covariance = (ratio * variance[:, None]).triu()
    return MultivariateNormal(signal * x0, covariance + covariance.triu(1).T)


def model_posterior(x0):
    """p(x_1, ..., x_K | x_0)."""
    joint = model_joint()
    gain = joint[1:, 0] / joint[0, 0]
    return MultivariateNormal(gain * x0, joint[1:, 1:] - gain[:, None] * joint[0, 1:])


def log_evidence(x0):
    return Normal(torch.zeros_like(x0), model_joint()[0, 0].sqrt()).log_prob(x0)


DENOISE = gaussian_denoiser((1,), STD, FixedSmall())
BOUND = VariationalBound(SHORT, GaussianDecoder())


def test_gap_of_the_bound_is_the_divergence_of_the_posteriors():
    """bound + log p(x_0) = KL(q(x_1..x_K | x_0) || p(x_1..x_K | x_0)), by quadrature of each L_t."""
    nodes = torch.linspace(-8.0, 8.0, 2001, dtype=torch.float64)
    weights = Normal(0.0, 1.0).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    for value in (0.1, 0.7, -1.5):
        x0 = torch.full((len(nodes), 1), value, dtype=torch.float64)
        terms = BOUND.terms(DENOISE, x0, lambda _: nodes[:, None])
        bound = (weights * terms.total).sum().item()
        expected = kl_between(data_posterior(value), model_posterior(value)).item()
        assert bound + log_evidence(torch.tensor(value, dtype=torch.float64)).item() == pytest.approx(
            expected, abs=1e-9
        )


def test_log_weight_is_the_ratio_of_the_joint_densities():
    """For the same trajectory, here in x_K first order as it is drawn."""
    K, x0 = SHORT.num_steps, torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    found = log_weight(BOUND, DENOISE, x0, draws(2, 1, seed=3))
    source = draws(2, 1, seed=3)
    trajectory = [x0]
    x = diffuse(x0, source(), SHORT.level(torch.tensor([K, K])))
    trajectory.insert(1, x)
    for i in range(K, 1, -1):
        x = posterior(x0, x, SHORT.step(torch.tensor([i, i]))).sample(source())
        trajectory.insert(1, x)
    joint = torch.cat(trajectory, dim=1)
    log_p = MultivariateNormal(torch.zeros(K + 1, dtype=torch.float64), model_joint()).log_prob(joint)
    for b in range(2):
        log_q = data_posterior(x0[b, 0]).log_prob(joint[b, 1:])
        assert found[b].item() == pytest.approx((log_p[b] - log_q).item(), abs=1e-8)


def test_one_trajectory_is_the_bound_on_average():
    x0 = torch.full((20_000, 1), 0.7, dtype=torch.float64)
    values = -log_weight(BOUND, DENOISE, x0, draws(*x0.shape))
    terms = BOUND.terms(DENOISE, x0, lambda i: randn(*x0.shape, seed=i)).total
    error = math.hypot(values.std().item(), terms.std().item()) / math.sqrt(len(x0))
    assert abs(values.mean() - terms.mean()) < 4 * error


def test_importance_weighted_bound_rises_to_the_evidence():
    x0 = torch.full((64_000, 1), 0.7, dtype=torch.float64)
    values = log_weight(BOUND, DENOISE, x0, draws(*x0.shape))
    exact = log_evidence(torch.tensor(0.7, dtype=torch.float64)).item()
    previous, gaps = -math.inf, []
    for M in (1, 4, 16, 64, 256):
        estimates = log_mean_weight(values.view(M, -1))
        mean, stderr = estimates.mean().item(), estimates.std().item() / math.sqrt(len(estimates))
        assert mean > previous
        assert mean < exact + 4 * stderr
        previous = mean
        gaps.append(exact - mean)
    assert gaps[-1] < 0.02 * gaps[0] + 4 * stderr


def test_importance_weighted_bound_of_a_clipped_bound_uses_the_clipped_prediction():
    x0 = torch.full((4000, 1), 0.2, dtype=torch.float64)
    clipped = VariationalBound(SHORT, GaussianDecoder(), clip=(-1.0, -0.5))
    values = -log_weight(clipped, DENOISE, x0, draws(*x0.shape))
    terms = clipped.terms(DENOISE, x0, lambda i: randn(*x0.shape, seed=i)).total
    error = math.hypot(values.std().item(), terms.std().item()) / math.sqrt(len(x0))
    assert abs(values.mean() - terms.mean()) < 4 * error
    unclipped = BOUND.terms(DENOISE, x0, lambda i: randn(*x0.shape, seed=i)).total
    assert terms.mean() - unclipped.mean() > 20 * error


def test_effective_sample_size_counts_equal_weights():
    log_weights = torch.tensor([[0.0, 0.0, -1000.0], [0.0, -1000.0, -1000.0]]).double()
    torch.testing.assert_close(effective_sample_size(log_weights), torch.tensor([2.0, 1.0, 2.0]).double())


@pytest.mark.parametrize(("spread", "number", "tolerance"), [(0.3, 50, 0.05), (5.0, 8, 0.4)])
def test_variance_of_the_log_of_a_mean_predicts_its_scatter(spread, number, tolerance):
    """Also for an effective sample size of about 1."""
    log_weights = spread * randn(number, 4000)
    found = variance_of_log_mean(log_weights)
    assert found is not None
    scatter = log_mean_weight(log_weights).std().item()
    assert found.mean().sqrt().item() == pytest.approx(scatter, rel=tolerance)
    assert variance_of_log_mean(log_weights[:1]) is None
