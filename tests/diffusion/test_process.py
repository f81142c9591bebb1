"""The forward process composes, and its posterior is Bayes' rule."""

import pytest
import torch
from torch.distributions import Normal

from nelbo.diffusion.chain import Chain
from nelbo.diffusion.process import diffuse, forward, marginal, posterior, posterior_coefficients

CHAINS = pytest.mark.parametrize("timesteps", [None, [1, 2, 17, 40, 50]], ids=["full", "sub-chain"])


def steps(make_schedule, timesteps, first=1):
    schedule = make_schedule(num_steps=50)
    chain = Chain(schedule, None if timesteps is None else torch.tensor(timesteps))
    return chain.step(torch.arange(first, chain.num_steps + 1))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@CHAINS
def test_two_steps_are_one(make_schedule, timesteps):
    """q(x_t | x_s) after q(x_s | x_0) is q(x_t | x_0)."""
    step = steps(make_schedule, timesteps)
    x0 = torch.full((len(step.t.t), 1), 1.7, dtype=torch.float64)
    from_s = marginal(x0, step.s)
    onward = forward(from_s.mean, step)
    ratio = forward(torch.ones_like(x0), step).mean
    direct = marginal(x0, step.t)
    close(onward.mean, direct.mean)
    close(ratio.square() * from_s.log_var.exp() + onward.log_var.exp(), direct.log_var.exp())


def test_a_draw_is_the_marginal(make_schedule):
    level = make_schedule(num_steps=50).level(torch.arange(1, 51))
    x0, eps = torch.randn(2, 50, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(diffuse(x0, eps, level), marginal(x0, level).sample(eps))


@CHAINS
def test_posterior_is_the_normalised_product_of_its_two_factors(make_schedule, timesteps):
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): precisions add up."""
    step = steps(make_schedule, timesteps, first=2)
    x0, xt = torch.randn(2, len(step.t.t), 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ratio = forward(torch.ones_like(x0), step).mean
    beta = forward(x0, step).log_var.exp()
    prior = marginal(x0, step.s)
    precision = (-prior.log_var).exp() + ratio.square() / beta
    mean = ((-prior.log_var).exp() * prior.mean + ratio / beta * xt) / precision
    actual = posterior(x0, xt, step)
    close(actual.log_var.exp(), 1 / precision)
    close(actual.mean, mean)


def test_posterior_on_a_grid(make_schedule):
    """The same by brute force: normalise q(x_t | x_s) q(x_s | x_0) over a grid of x_s."""
    step = Chain(make_schedule(num_steps=50)).step(torch.tensor([25]))
    x0 = torch.tensor([[0.3]], dtype=torch.float64)
    xt = torch.tensor([[-0.4]], dtype=torch.float64)
    q = posterior(x0, xt, step)
    xs = q.mean + (0.5 * q.log_var).exp() * torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None]
    to_xt = forward(xs, step)
    product = to_xt.log_prob(xt) + marginal(x0, step.s).log_prob(xs)
    density = product.softmax(0) / (xs[1] - xs[0])
    expected = Normal(q.mean, (0.5 * q.log_var).exp()).log_prob(xs).exp()
    torch.testing.assert_close(density, expected, rtol=1e-8, atol=1e-8 * expected.max().item())


def test_the_posterior_of_the_first_step_is_the_data(make_schedule):
    step = Chain(make_schedule(num_steps=50)).step(torch.tensor([1]))
    from_xt, from_x0 = posterior_coefficients(step)
    assert (from_xt.item(), from_x0.item()) == (0, 1)
