"""Variance of a one-draw estimate of the bound, for several interiors of the schedule of one trained model.

    python -m benchmarks.schedule_variance --checkpoint outputs/.../checkpoints/last.ckpt

The model must be in continuous time with ``c_noise=logsnr`` or ``log_sigma``. Then its network depends on the
noise level alone, and the denoising part of the bound does not depend on the curve between the two ends. All
curves run between the ends of the model's schedule: the line in logsnr, the cosine and the linear-beta
schedule truncated to the ends, the model's own if it is learned, and ``schedule=adaptive`` with the costs of
the training split. The last row has the same curve from root mean squares of the costs: the density with the
smallest variance.

The table has the mean of the estimate at uniform u over the test split, which is the same for all curves up
to its error; its standard deviation; and the part of that between levels, the standard deviation of the mean
at u. The rest is between examples and noise. Errors are standard deviations over bootstrap samples of the
test examples, which are the same for all curves.
"""

import argparse

import torch
from torch import Tensor

from nelbo.compose.trained import load_model, read_data
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import ContinuousTime
from nelbo.diffusion.process import diffuse
from nelbo.diffusion.schedules import (
    AdaptiveSchedule,
    CosineSchedule,
    LearnedSchedule,
    LinearLogSNRSchedule,
    LinearSchedule,
    NoiseSchedule,
)
from nelbo.randomness import generator
from nelbo.training.module import DiffusionModule

LEVEL_BINS = 50  # of u, for the variance between levels
BOOTSTRAPS = 200


def draws(
    module: DiffusionModule, schedule: NoiseSchedule, x0: Tensor, rounds: int, *key: int | str
) -> tuple[Tensor, Tensor]:
    """One-draw estimates of the denoising part of the bound.

    Returns:
        u and nats, each (rounds, B). The examples of a round have stratified u, as in training.
    """
    chain = ContinuousTime(schedule, bins=1)
    bound = VariationalBound(chain, module.bound.decoder)
    source = generator(0, *key)
    us: list[Tensor] = []
    nats: list[Tensor] = []
    for _ in range(rounds):
        u = (torch.randperm(len(x0), generator=source) + torch.rand((), generator=source)) / len(x0)
        eps = torch.randn(x0.shape, generator=source)
        step = chain.step(torch.full((len(x0),), 2), u.double())
        with torch.no_grad():
            prediction = module.denoiser(diffuse(x0, eps, step.t), step.t)
            nats.append(bound.term(step, x0, prediction).double())
        us.append(u.double())
    return torch.stack(us), torch.stack(nats)


def adapt(
    module: DiffusionModule, clean: float, noisy: float, x0: Tensor, rounds: int, root_mean_square: bool
) -> AdaptiveSchedule:
    """``schedule=adaptive`` from draws at examples (B, ...), reshaped after every fourth of them."""
    schedule = AdaptiveSchedule(None, logsnr_max=clean, logsnr_min=noisy, decay=0.0)
    for part in range(4):
        u, nats = draws(module, schedule, x0, rounds // 4, "adapt", part)
        u, nats = u.flatten(), nats.flatten()
        if root_mean_square:
            index = schedule.bin(u)
            mean_square = torch.zeros(len(schedule.cost)).double().index_add_(0, index, nats.square())
            nats = (mean_square / index.bincount(minlength=len(schedule.cost))).sqrt()[index]
        schedule.update(u, nats)
        schedule.reshape()
    return schedule


def statistics(u: Tensor, nats: Tensor) -> Tensor:
    """Mean, standard deviation, and its part between levels, (3,), of draws (rounds, B)."""
    index = (u.flatten() * LEVEL_BINS).long()
    count = index.bincount(minlength=LEVEL_BINS).double()
    flat = nats.flatten()
    sums, squares = (torch.zeros_like(count).index_add_(0, index, x) for x in (flat, flat.square()))
    mean = sums / count
    within = (squares / count - mean.square()) * count / (count - 1)
    between = (count / count.sum() * ((mean - flat.mean()).square() - within / count)).sum().clamp(min=0.0)
    return torch.stack([flat.mean(), flat.std(), between.sqrt()])


def bootstrap(u: Tensor, nats: Tensor) -> Tensor:
    """The statistics of bootstrap samples of the examples, (BOOTSTRAPS, 3)."""
    source = generator(0, "bootstrap")
    rows = torch.randint(u.shape[1], (BOOTSTRAPS, u.shape[1]), generator=source)
    return torch.stack([statistics(u[:, some], nats[:, some]) for some in rows])


def curves(module: DiffusionModule, x0: Tensor, rounds: int) -> dict[str, NoiseSchedule]:
    """The schedules to compare, by name; x0 are examples of the training split."""
    own = module.bound.chain.schedule
    clean, noisy = own.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr.detach().tolist()
    ends = {"num_steps": None, "logsnr_max": clean, "logsnr_min": noisy}
    found: dict[str, NoiseSchedule] = {
        "linear in logsnr": LinearLogSNRSchedule(**ends),
        "cosine": CosineSchedule(**ends),
        "linear beta": LinearSchedule(**ends),
    }
    if isinstance(own, LearnedSchedule):
        found["learned net"] = own
    found["adaptive"] = adapt(module, clean, noisy, x0, rounds, root_mean_square=False)
    found["adaptive, sqrt(E[cost^2])"] = adapt(module, clean, noisy, x0, rounds, root_mean_square=True)
    return found


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description="Variance of the estimate for several schedules")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=64, help="draws per test example")
    options = parser.parse_args()
    model = load_model(options.checkpoint)
    module, data = model.module, read_data(model)
    data.setup()

    def examples(split: str) -> Tensor:
        found = data.split(split)  # pyright: ignore[reportArgumentType]
        return data.on_after_batch_transfer(found.fetch(torch.arange(len(found)), 0)).x0

    train, test = examples("train"), examples("test")
    per_dim = 1.0 / (test[0].numel() * torch.log(torch.tensor(2.0)).item())
    schedules = curves(module, train, options.rounds)
    results = {
        name: draws(module, schedule, test, options.rounds, "test") for name, schedule in schedules.items()
    }
    samples = {name: bootstrap(*result) for name, result in results.items()}
    line = samples["linear in logsnr"][:, 1]
    print("| interior | mean, bits/dim | standard deviation of one draw | between levels | variance / line |")
    print("| --- | --- | --- | --- | --- |")
    for name, (u, nats) in results.items():
        values, errors = statistics(u, nats) * per_dim, samples[name].std(0) * per_dim
        ratio = (statistics(u, nats)[1] / statistics(*results["linear in logsnr"])[1]) ** 2
        ratio_error = ((samples[name][:, 1] / line) ** 2).std()
        cells = [f"{value:.3f} ± {error:.3f}" for value, error in zip(values, errors, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {ratio:.3f} ± {ratio_error:.3f} |")
    print(f"{len(test)} test examples, {options.rounds} draws each; step {model.weights.step}")


if __name__ == "__main__":
    main()
