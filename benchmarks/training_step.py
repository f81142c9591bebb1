"""A training step without the loop of Lightning: the module, optimizer and callbacks of a configuration."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig
from torch import nn

from benchmarks.interleave import Precision
from nelbo.compose.build import build_module
from nelbo.compose.config import CONFIG_DIR
from nelbo.data import DataModule
from nelbo.data.batch import Batch
from nelbo.training.callbacks import LiveBound


@dataclass(frozen=True)
class Variant:
    """Settings of a training step.

    Attributes:
        tf32: TF32 in products of float32 numbers.
        bf16: bfloat16 autocast.
        channels_last: this memory format for the weights, and therefore for the feature maps.
        compile: mode of ``torch.compile`` for the network; None: not compiled.
    """

    tf32: bool = True
    bf16: bool = False
    channels_last: bool = False
    compile: str | None = None

    @property
    def precision(self) -> Precision:
        """Its arithmetic."""
        return Precision(self.tf32, self.bf16)

    def prepare(self, network: nn.Module) -> None:
        """Set memory format and compilation of the network."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if self.compile is not None:
            network.compile(mode=self.compile)


def configure(*overrides: str) -> DictConfig:
    """The configuration of ``train.py`` with these options, in a temporary folder and without logger."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    run_dir = tempfile.mkdtemp(prefix="nelbo-benchmark-")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", overrides=["logger=none", f"run_dir={run_dir}", *overrides])


def endless_batches(data: DataModule, device: torch.device) -> Iterator[Batch]:
    """Training batches on the device, epoch after epoch."""
    loader = data.train_dataloader()
    while True:
        for batch in loader:
            yield data.on_after_batch_transfer(batch.to(device))
        loader.set_epoch(loader.epoch + 1)


class LooplessTrainer(Trainer):
    """The attributes of a trainer that a step and its callbacks read, without a loop or logging."""

    global_step = 0

    def __init__(self, **options: object) -> None:
        super().__init__(logger=False, enable_checkpointing=False, log_every_n_steps=2**31, **options)


class TrainingStep:
    """Loss and live bound of the next batch, backward, optimizer, learning-rate schedule, EMA, LiveBound.

    Args:
        config: configuration of train.py.
        batches: training batches.
        device: device of the step.
        variant: precision, memory format and compilation.
    """

    def __init__(
        self,
        config: DictConfig,
        batches: Iterator[Batch],
        device: torch.device,
        variant: Variant = Variant(),
    ) -> None:
        self.batches = batches
        self.module = build_module(config, instantiate(config.data).spec).to(device)
        variant.prepare(self.module.denoiser.network)
        self.trainer = LooplessTrainer(accelerator=device.type, devices=1)
        self.module.trainer = self.trainer
        self.device = device
        self.precision = variant.precision
        self.optimizer = self.module.make_optimizer(self.module.parameters())
        self.lr_schedule = self.module.make_lr_schedule(self.optimizer)
        self.ema = instantiate(config.callbacks.ema)
        self.ema.setup(self.trainer, self.module, "fit")
        self.live_bound = LiveBound(config.run_dir)
        self.live_bound.on_train_start(self.trainer, self.module)
        self.callbacks = [self.ema, self.live_bound]

    def __call__(self) -> None:
        """Make one step."""
        batch = next(self.batches)
        with self.precision(self.device):
            outputs = self.module.training_step(batch, 0)
        outputs["loss"].backward()
        self.optimizer.step()
        self.lr_schedule.step()
        self.optimizer.zero_grad()
        self.trainer.global_step += 1
        for callback in self.callbacks:
            callback.on_train_batch_end(self.trainer, self.module, outputs, batch, 0)
