"""Sample quality during training: ``val/fid``, or ``val/fd_pixels``, and ``sample_quality.json``."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from nelbo.atomic_file import write_json
from nelbo.cond import rows_of
from nelbo.data.base import DataModule, SplitName
from nelbo.data.spec import DataSpec
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.samplers import Sampler
from nelbo.diffusion.spacings import Spacing
from nelbo.evaluation.generation import generate, training_chain
from nelbo.evaluation.ledger import describe_levels
from nelbo.evaluation.sample_metrics import (
    FeatureAccumulator,
    Features,
    Reference,
    features_of,
    make_reference,
    quality,
    quality_ledger,
)
from nelbo.evaluation.sample_metrics.quality import FEWEST
from nelbo.option_types import Folder, NonNegativeInt, PositiveInt
from nelbo.progress import counted
from nelbo.training.callbacks.ema import measured_weights
from nelbo.training.module import DiffusionModule
from nelbo.training.ranks import all_reduce_sum

FILE_NAME = "sample_quality.json"


class SampleQuality(Callback):
    """Draw samples with the averaged weights, always from the same noise, and compare them with data.

    Each rank draws a part of the samples. The samples and the metrics do not depend on the number of ranks. A
    conditional model draws classes in the proportions of the training split, or conditions of its examples.

    Args:
        sampler: of the samples.
        spacing: of the sampler's steps.
        features: feature extractor for samples and data.
        spec: of the data.
        run_dir: the run's folder.
        num_samples: number of samples. Metrics are comparable only for the same number.
        every: validations between two measurements. The last validation of a training always measures.
        split: split that the samples are compared with.
        num_examples: number of examples of that split; None for all.
        pairwise: number of samples and examples for the metrics over pairs (kid, precision, recall); 0 for
            none.
        batch_size: samples drawn at a time, on each rank.
        cache: folder for features of the data; None for $NELBO_CACHE, or else ~/.cache/nelbo.
        seed: of the noise.

    Raises:
        ValueError: if ``num_samples`` is too small, or ``features`` does not support the data.
    """

    def __init__(
        self,
        sampler: Sampler,
        spacing: Spacing,
        features: Features,
        spec: DataSpec,
        run_dir: str,
        num_samples: int = 1000,
        every: PositiveInt = 1,
        split: SplitName = "train",
        num_examples: PositiveInt | None = None,
        pairwise: NonNegativeInt = 10_000,
        batch_size: PositiveInt = 256,
        cache: Folder | None = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        if num_samples < FEWEST:
            raise ValueError(f"callbacks.sample_quality.num_samples={num_samples} must be at least {FEWEST}")
        self.sampler = sampler
        self.spacing = spacing
        self.features = features
        self.dims = features.dims(spec)
        self.spec = spec
        self.path = Path(run_dir) / FILE_NAME
        self.num_samples = num_samples
        self.every = every
        self.split: SplitName = split
        self.num_examples = num_examples
        self.pairwise = pairwise
        self.batch_size = batch_size
        self.cache = cache
        self.seed = seed
        self.validations = 0
        self._reference: Reference | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the features of the data before training, so that errors are reported early."""
        self._reference = self._make_reference(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure. The average of the weights is in place until the end of the epoch."""
        assert isinstance(pl_module, DiffusionModule)
        self.validations += 1
        if self.validations % self.every and not _is_last_validation(trainer):
            return
        if self._reference is None:
            self._reference = self._make_reference(trainer, pl_module)
        chain = training_chain(self.sampler, self.spacing, pl_module.bound.chain)
        metrics = self._measure(trainer, pl_module, chain, self._reference)
        for name, value in metrics.items():
            shown = name == self.features.names.frechet
            # equal on all ranks; sync_dist only silences a warning of Lightning
            pl_module.log(f"val/{name}", value, prog_bar=shown, sync_dist=True)
        if trainer.is_global_zero:
            self._write(trainer, chain, metrics, self._reference)

    def state_dict(self) -> dict[str, Any]:
        """The number of validations so far."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        self.validations = state_dict["validations"]

    def _make_reference(self, trainer: Trainer, pl_module: LightningModule) -> Reference:
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        with counted(f"features of the {self.split} split", shown=trainer.is_global_zero) as progress:
            return make_reference(
                data,
                self.split,
                self.features,
                self.num_examples,
                self.pairwise,
                self.cache,
                pl_module.device,
                (trainer.global_rank, trainer.world_size),
                partial(all_reduce_sum, trainer),
                progress,
            )

    def _measure(
        self, trainer: Trainer, pl_module: DiffusionModule, chain: Chain, reference: Reference
    ) -> dict[str, float]:
        accumulator = FeatureAccumulator(self.dims, self.num_samples, self.pairwise, pl_module.device)
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        cond = data.training_conds(self.num_samples) if pl_module.conditional else None
        mine = torch.arange(trainer.global_rank, self.num_samples, trainer.world_size)
        for index in mine.split(self.batch_size):
            x0 = generate(
                self.sampler,
                pl_module.denoiser,
                chain,
                self.spec.shape,
                index,
                rows_of(cond, index),
                self.seed,
                pl_module.device,
            )
            accumulator.add(features_of(x0, self.features, self.spec), index)
        accumulator.all_reduce_sum(partial(all_reduce_sum, trainer))
        # computed once: ranks on one machine would compete for its cores
        metrics = quality(accumulator, reference, self.features) if trainer.is_global_zero else {}
        return trainer.strategy.broadcast(metrics)

    def _write(
        self,
        trainer: Trainer,
        chain: Chain,
        metrics: dict[str, float],
        reference: Reference,
    ) -> None:
        ledger = quality_ledger(
            reference,
            self.num_samples,
            sampler=type(self.sampler).__name__,
            steps=chain.num_steps,
            timesteps=describe_levels(chain),
            spacing=type(self.spacing).__name__,
            seed=self.seed,
            weights=measured_weights(trainer),
        )
        content = {"step": trainer.global_step, **metrics, "ledger": ledger}
        write_json(self.path, content)


def _is_last_validation(trainer: Trainer) -> bool:
    """Whether training ends after it, by max_steps, max_time or max_epochs, or it is outside of training."""
    ends_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return (
        trainer.state.fn != "fit"
        or trainer.should_stop
        or trainer.global_step == trainer.max_steps
        or (ends_epoch and trainer.current_epoch + 1 == trainer.max_epochs)
    )
