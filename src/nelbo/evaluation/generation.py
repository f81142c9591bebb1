"""Samples as functions of the seed and their number."""

import torch
from torch import Tensor

from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.samplers import Sampler
from nelbo.diffusion.samplers.base import Watch
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.noise import ExampleNoise


def generate(
    sampler: Sampler,
    denoise: Denoise,
    chain: Chain,
    shape: tuple[int, ...],
    index: Tensor,
    label: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Watch = lambda step, xt, prediction: None,
) -> Tensor:
    """Generate samples, (B, *shape) in the values of the data.

    Args:
        sampler: computes the steps of the chain.
        denoise: maps (x_t, level, label) to a prediction.
        chain: the levels of the steps.
        shape: of one sample.
        index: (B,) numbers of the samples, on the CPU.
        label: (B,) class of each sample; None for an unconditional model.
        seed: of the noise.
        device: where the samples are generated.
        watch: called before every step with the step, x_t and the prediction.
    """
    noise = ExampleNoise(seed, "samples", index, torch.zeros(len(index), *shape, device=device))
    label = None if label is None else label.to(device)
    return sampler.sample(denoise, chain, noise.draw(), lambda _: noise.draw(), label, watch)


def training_chain(sampler: Sampler, spacing: Spacing, full: Chain) -> Chain:
    """The chain of a sampler during training; the full chain if that is not longer.

    Args:
        sampler: its ``steps`` is the length of the chain; None for all.
        spacing: of the chain.
        full: the chain of all timesteps.
    """
    if sampler.steps is None or sampler.steps >= full.num_steps:
        return full
    return spacing.chain(full.schedule, sampler.steps)
