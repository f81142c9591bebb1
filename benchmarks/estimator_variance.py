"""Variance of estimates of the bound with the same network evaluations.

    python -m benchmarks.estimator_variance                   # an exact mixture
    python -m benchmarks.estimator_variance --checkpoint ...  # a trained model

Every row is the Monte Carlo variance of L_0 + sum of L_t of one example from
one pass of the chain, K network evaluations, in nats^2, and its standard error
over the examples:

independent       one draw of noise for each step
antithetic        the mean of eps and -eps, at the same cost: variance times
                  (1 + their correlation)
control variate   minus the squared error of the exact denoiser of a Gaussian
                  fitted to the training data, without its expectation over the
                  noise, in proportion to the means of both
path              minus the log weight of one trajectory of the forward
                  process: likelihood=iwae with M = 1

The last part has the variance that timesteps alone cause, times the number of
examples: that of the mean curve of L_t at the timesteps of 180 examples with 6
draws each.
"""

import argparse

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from nelbo.compose.config import CONFIG_DIR
from nelbo.compose.trained import read_model
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import Chain, finite_chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import GaussianMixtureDenoiser
from nelbo.diffusion.likelihood import log_weight
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import FixedLarge
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.estimators import StratifiedEstimator

EXAMPLES, DRAWS, STD = 180, 6, 0.3


class Gaussian:
    """A Gaussian fitted to training data (N, ...), and the error of its exact denoiser."""

    def __init__(self, x0: Tensor) -> None:
        self.mean = x0.double().flatten(1).mean(0)
        self.var, self.axes = torch.linalg.eigh(torch.cov(x0.double().flatten(1).T))

    def squared_error(self, x0: Tensor, eps: Tensor, signal: float, noise: float) -> tuple[Tensor, Tensor]:
        """|x_0 - x0_hat|^2 for draws (J, N, ...), and its expectation over the noise, (N,)."""
        gain = signal * self.var / (signal**2 * self.var + noise**2)
        bias = (1.0 - gain * signal) * ((x0.double().flatten(1) - self.mean) @ self.axes)
        spread = gain * noise * (eps.double().flatten(2) @ self.axes)
        return (bias - spread).square().sum(-1), bias.square().sum(1) + (gain * noise).square().sum()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="of a model without conditions; the exact mixture by default")
    parser.add_argument("--examples", type=int, default=32, help="of the test split (default 32)")
    parser.add_argument("--paths", type=int, default=4, help="trajectories of each example (default 4)")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th step (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bound, denoise, x0, train = mixture(arguments.examples)
    if arguments.checkpoint:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            model = read_model(compose("evaluate", overrides=[f"checkpoint={arguments.checkpoint}"]))
        data = instantiate(model.config.data)
        data.prepare_data()
        bound, denoise = model.module.bound, model.module.denoiser
        x0 = data.take("test", arguments.examples).x0
        train = data.take("train", len(data.split("train"))).x0
    compare(bound, denoise, x0, Gaussian(train), arguments.paths, arguments.every)


def mixture(n: int) -> tuple[VariationalBound, Denoise, Tensor, Tensor]:
    """The bound of a mixture of three Gaussians in the plane, T = 1000, with the exact denoiser."""
    means = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    component = torch.randint(3, (2000 + n,), generator=draw)
    x = means[component] + STD * torch.randn(2000 + n, 2, generator=draw, dtype=torch.float64)
    bound = VariationalBound(Chain(CosineSchedule(1000)), GaussianDecoder())
    denoise = GaussianMixtureDenoiser(means, torch.full((3,), 1 / 3), STD, FixedLarge())
    return bound, denoise, x[:n], x[n:]


def compare(
    bound: VariationalBound, denoise: Denoise, x0: Tensor, gaussian: Gaussian, paths: int, every: int
) -> None:
    """Print the table."""
    chain, n, draw = finite_chain(bound.chain), len(x0), torch.Generator().manual_seed(1)
    of_draw, of_pair, of_rest = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
    steps, curve = torch.cat([torch.tensor([1]), torch.arange(2, chain.num_steps + 1, every)]), []
    for t in steps.tolist():
        count = 1 if t == 1 else every
        step = chain.step(torch.full((4 * n,), t))
        e = torch.randn(2, *x0.shape, generator=draw, dtype=x0.dtype)
        eps = torch.stack([e[0], -e[0], e[1], -e[1]])
        x = x0.repeat(4, *[1] * (x0.ndim - 1))
        nats = bound.term(step, x, denoise(diffuse(x, eps.flatten(0, 1), step.t), step.t, None))
        nats = nats.double().view(4, n)
        scales = step.t.signal_scale[0].item(), step.t.noise_scale[0].item()
        error, expected = gaussian.squared_error(x0, eps, *scales)
        rest = nats - nats.mean() / expected.mean() * (error - expected)
        curve.append(nats.mean().item())
        pairs = nats.view(2, 2, n).mean(1)
        of_draw += count * 0.25 * ((nats[0] - nats[2]).square() + (nats[1] - nats[3]).square())
        of_pair += count * (pairs[0] - pairs[1]).square()
        of_rest += count * 0.25 * ((rest[0] - rest[2]).square() + (rest[1] - rest[3]).square())
    weights = [
        -log_weight(bound, denoise, x0, lambda: torch.randn(x0.shape, generator=draw, dtype=x0.dtype))
        for _ in range(paths)
    ]
    of_path = torch.stack(weights).var(0)
    total = torch.stack(weights).mean().item()
    print(f"{n} examples, K = {chain.num_steps}, bound {total:.3f} nats")
    print(f"{'':<20}{'nats^2':>12}{'+-':>10}{'share':>8}")
    rows = {
        "independent noise": of_draw, "antithetic noise": of_pair, "control variate": of_rest, "path": of_path
    }  # fmt: skip
    for name, values in rows.items():
        found = Estimate.of(values)
        share = found.mean / of_draw.mean().item()
        print(f"{name:<20}{found.mean:>12.4f}{found.stderr:>10.4f}{share:>8.2f}", flush=True)
    compare_timesteps(chain, torch.tensor(curve[1:], dtype=torch.float64).repeat_interleave(every))


def compare_timesteps(chain: Chain, curve: Tensor) -> None:
    """Print the variance of the mean that timesteps cause alone, times the number of examples."""
    K, of_rule = len(curve), {"independent": [], "stratified": [], "golden ratio": [], "Sobol": []}
    index = torch.arange(EXAMPLES * DRAWS)
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        sobol = torch.quasirandom.SobolEngine(1, scramble=True, seed=seed).draw(len(index)).flatten()
        steps = StratifiedEstimator(DRAWS + 2, seed).assign(torch.arange(EXAMPLES), EXAMPLES, chain).steps - 2
        golden = torch.rand(1, generator=draw, dtype=torch.float64) + index * 0.6180339887498949
        rules = {
            "independent": torch.rand(len(index), generator=draw),
            "stratified": (steps.flatten() + 0.5) / (chain.num_steps - 1),
            "golden ratio": golden % 1,
            "Sobol": sobol,
        }
        for name, u in rules.items():
            of_rule[name].append(K * curve[(u * K).long().clamp(max=K - 1)].mean())
    print(f"timesteps alone, {DRAWS} for each example:")
    for name, means in of_rule.items():
        print(f"{name:<20}{EXAMPLES * torch.stack(means).var().item():>12.4f}")


if __name__ == "__main__":
    main()
