"""A grid of samples at every validation: ``samples/step_00000500.png``, and in the loggers."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.cond import Cond
from nelbo.data.base import DataModule
from nelbo.data.spec import DataSpec
from nelbo.diffusion.samplers import Sampler
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.generation import generate, training_chain
from nelbo.option_types import NonNegativeInt
from nelbo.runs import images
from nelbo.runs.paths import SAMPLES
from nelbo.training.loggers.media import log_image
from nelbo.training.module import DiffusionModule


class SampleGrid(Callback):
    """Draw samples with the averaged weights, always from the same noise.

    Data without a renderer, such as vectors, has no grid. If the schedule has fewer timesteps than the
    sampler has steps, all timesteps are used. A conditional model draws all classes in turn, or with the
    conditions of training examples.

    Args:
        sampler: of the samples.
        spacing: of the sampler's steps.
        spec: of the data.
        run_dir: the run's folder.
        num_samples: number of samples, preferably a square number; 0 disables the grid.
        seed: of the noise.
    """

    def __init__(
        self,
        sampler: Sampler,
        spacing: Spacing,
        spec: DataSpec,
        run_dir: str,
        num_samples: NonNegativeInt = 36,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.sampler = sampler
        self.spacing = spacing
        self.spec = spec
        self.folder = Path(run_dir) / SAMPLES
        self.num_samples = num_samples
        self.seed = seed

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and save the grid. The average of the weights is in place until the end of the epoch."""
        assert isinstance(pl_module, DiffusionModule)
        if not self.spec.is_drawn or self.num_samples == 0 or not trainer.is_global_zero:
            return
        pixels = self.sample(pl_module)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:08d}.png"
        image = images.grid(pixels)
        images.save_png(path, image)
        log_image(trainer, "samples", image)

    def sample(self, pl_module: DiffusionModule) -> Tensor:
        """Samples as pixels, (num_samples, 1 or 3, H, W') uint8, on the CPU."""
        index = torch.arange(self.num_samples)
        cond: Cond | None = None
        if pl_module.conditional and self.spec.num_classes is not None:
            cond = index % self.spec.num_classes
        elif pl_module.conditional:
            data: DataModule = pl_module.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            cond = data.training_conds(self.num_samples)
        x0 = generate(
            self.sampler,
            pl_module.denoiser,
            training_chain(self.sampler, self.spacing, pl_module.bound.chain),
            self.spec.shape,
            index,
            cond,
            self.seed,
            pl_module.device,
        )
        return self.spec.to_pixels(x0).cpu()
