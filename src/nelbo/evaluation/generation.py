"""Samples as functions of the seed and their number."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nelbo.cond import Cond, rows_of, to_device
from nelbo.diffusion.bound import Denoise
from nelbo.diffusion.chain import Chain, StepSequence
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
    cond: Cond | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Watch = lambda step, xt, prediction: None,
) -> Tensor:
    """Generate samples, (B, *shape) in the values of the data.

    Args:
        sampler: computes the steps of the chain.
        denoise: maps (x_t, level, cond) to a prediction.
        chain: the levels of the steps.
        shape: of one sample.
        index: (B,) numbers of the samples, on the CPU.
        cond: class of each sample (B,), or a mapping of tensors (B, ...); None for an unconditional model.
        seed: of the noise.
        device: where the samples are generated.
        watch: called before every step with the step, x_t and the prediction.
    """
    noise = ExampleNoise(seed, "samples", index, torch.zeros(len(index), *shape, device=device))
    return sampler.sample(
        denoise, chain, noise.draw(), lambda _: noise.draw(), to_device(cond, device), watch
    )


@dataclass(frozen=True)
class SampleGenerator:
    """Generates samples by their numbers.

    Attributes:
        shape: of one sample.
        sampler: computes the steps of the chain.
        denoise: the predictions of the model, with guidance where it is requested.
        chain: the levels of the steps.
        cond: class of each sample (n,), or a mapping of tensors (n, ...); None for an unconditional model.
        seed: of all samples.
        device: of the sampling.
    """

    shape: tuple[int, ...]
    sampler: Sampler
    denoise: Denoise
    chain: Chain
    cond: Cond | None
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        self.sampler.check_schedule(self.chain.schedule)

    def __call__(self, numbers: list[int], watch: Watch = lambda step, xt, prediction: None) -> Tensor:
        """Samples (B, ...) in the values of the data.

        Raises:
            ValueError: for samples that are not finite.
        """
        cond = rows_of(self.cond, numbers)
        index = torch.tensor(numbers)
        x0 = generate(
            self.sampler, self.denoise, self.chain, self.shape, index, cond, self.seed, self.device, watch
        )
        finite = x0.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            raise ValueError(f"sample {numbers[finite.index(False)]} is not finite: the model has diverged")
        return x0


def training_chain(sampler: Sampler, spacing: Spacing, full: StepSequence) -> Chain:
    """The chain of a sampler during training; all timesteps if it has no fewer steps.

    Args:
        sampler: its ``steps`` is the length of the chain; None for all.
        spacing: of the chain.
        full: all timesteps, or continuous time.
    """
    sampler.check_schedule(full.schedule)
    if isinstance(full, Chain) and (sampler.steps is None or sampler.steps >= full.num_steps):
        return full
    return spacing.chain(full.schedule, sampler.steps)
