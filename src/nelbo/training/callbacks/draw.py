"""Samples by their numbers, drawn in training."""

import torch
from torch import Tensor

from nelbo.diffusion.samplers import Sampler
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.noise import ExampleNoise
from nelbo.training.module import DiffusionModule


def draw(
    pl_module: DiffusionModule,
    sampler: Sampler,
    spacing: Spacing,
    shape: tuple[int, ...],
    index: Tensor,
    label: Tensor | None,
    seed: int,
) -> Tensor:
    """Samples (B, *shape) in values, each a function of the seed and its number.

    A schedule of fewer timesteps than the sampler has steps is walked through whole.

    Args:
        pl_module: the model, with the weights that it has now.
        sampler: walks the chain.
        spacing: of its steps.
        shape: of one sample.
        index: (B,) numbers of the samples.
        label: (B,) classes of the samples; None for an unconditional model.
        seed: of the noise.
    """
    like = torch.zeros(len(index), *shape, device=pl_module.device)
    noise = ExampleNoise(seed, "samples", index, like)
    chain = pl_module.bound.chain
    if (sampler.steps or chain.num_steps) < chain.num_steps:
        chain = spacing.chain(chain.schedule, sampler.steps)
    label = None if label is None else label.to(pl_module.device)
    return sampler.sample(
        pl_module.denoiser, chain, xT=noise.draw(), noise=lambda _: noise.draw(), label=label
    )
