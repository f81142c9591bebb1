"""Overhead of Lightning: Trainer.fit against the same step in a bare loop.

    python -m benchmarks.lightning_overhead  # the digits, batch 128
    python -m benchmarks.lightning_overhead data=patches data.batch_size=16

Accepts the options of train.py. Both loops read batches from the data module
and compute EMA and bound. The fit has all default callbacks and logging,
without validation and checkpoints. The two alternate step by step in one
process. Prints the median time of a step of both, and the median of the
differences in ms and in per cent, with quartiles.
"""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer

from benchmarks.interleave import Clock, ratio, set_up_clock, summarise
from benchmarks.training_step import TrainingStep, configure, endless_batches
from nelbo.compose.build import build_callbacks, build_loggers, build_module, build_trainer
from nelbo.data.batch import Batch


class Alternate(Callback):
    """Run and time a bare step after every step of a fit. Must be the last callback."""

    def __init__(self, bare_step: TrainingStep, clock: Clock) -> None:
        self.bare_step = bare_step
        self.clock = clock
        self.in_fit: list[float] = []
        self.bare: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = self.clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop the clock of the fit, time a bare step, start the clock again."""
        stopped = self.clock()
        self.bare_step()
        self.in_fit.append(stopped - self.started)
        self.started = self.clock()
        self.bare.append(self.started - stopped)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default 1)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("overrides", nargs="*", help="options of train.py")
    arguments = parser.parse_args()
    device = torch.device("cpu")
    clock = set_up_clock(device, arguments.threads)

    config = configure(
        "objective=simple",
        f"trainer.max_steps={arguments.steps}",
        "trainer.gradient_clip_val=null",
        "+trainer.limit_val_batches=0",
        f"checkpoint_every={10 * arguments.steps}",
        *arguments.overrides,
    )
    data = instantiate(config.data)
    bare_step = TrainingStep(config, endless_batches(instantiate(config.data), device), device)
    alternate = Alternate(bare_step, clock)
    module = build_module(config, data.spec)
    callbacks = [*build_callbacks(config, data.spec, module.bound.chain), alternate]
    trainer = build_trainer(config, callbacks, build_loggers(config, Path(config.run_dir)))
    trainer.fit(module, datamodule=data)

    in_fit, bare = alternate.in_fit[5:], alternate.bare[5:]  # the first steps allocate
    difference = summarise([1e3 * (a - b) for a, b in zip(in_fit, bare, strict=True)])
    print(f"bare loop {1e3 * median(bare):.2f} ms, Trainer.fit {1e3 * median(in_fit):.2f} ms per step")
    print(f"difference {difference} ms, fit / bare {ratio(in_fit, bare)}")


if __name__ == "__main__":
    main()
