"""Cost of the bound during training: a step with and without it.

    python -m benchmarks.live_bound  # the digits, batch 128
    python -m benchmarks.live_bound data=patches data.batch_size=16
    python -m benchmarks.live_bound --device cuda data=patches

Accepts the options of train.py. Without the bound, its term and the prior are
not computed and LiveBound does not run. Prints the median time of both steps,
and their ratio with quartiles. Because the ratio of whole steps is noisy, the
computation of the bound is also timed alone and compared with the step, which
is more precise.
"""

import argparse
from collections.abc import Callable
from itertools import repeat
from statistics import median

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.interleave import add_timing_arguments, interleave, ratio, set_up_clock
from benchmarks.training_step import TrainingStep, Variant, configure, endless_batches
from nelbo.data.batch import Batch
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.level import Step


class NoBound(VariationalBound):
    """A bound whose terms are 0."""

    def prior(self, x0: Tensor) -> Tensor:
        """0, (B,)."""
        return x0.new_zeros(len(x0))

    def term(self, step: Step, x0: Tensor, prediction: Prediction) -> Tensor:
        """0, (B,)."""
        return x0.new_zeros(len(x0))


class BoundAlone:
    """The computations of the bound in a step: one term per example, the prior, and their accumulation."""

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.batch = next(step.batches)
        module = step.module
        sample, eps = module.draw(self.batch.x0)
        self.at = module.bound.chain.step(sample.index)
        with torch.no_grad():
            # the noise in place of x_t: what is predicted from it does not matter here
            self.prediction = module.denoiser(eps, self.at.t)
        self.outputs = {"loss": eps.new_zeros(()), "index": sample.index, "weight": sample.weight}

    @torch.no_grad()
    def __call__(self) -> None:
        """Compute and accumulate."""
        module, x0 = self.step.module, self.batch.x0
        self.outputs["bound"] = module.bound.term(self.at, x0, self.prediction)
        self.outputs["prior"] = module.bound.prior(x0)
        self.step.live_bound.on_train_batch_end(self.step.trainer, module, self.outputs, self.batch, 0)


def make_steps(
    config: DictConfig, batch: Batch, device: torch.device, variant: Variant
) -> dict[str, Callable[[], None]]:
    """Training steps ``with`` and ``without`` the bound, and the computation of the bound ``alone``."""
    measured, unmeasured = (TrainingStep(config, repeat(batch), device, variant) for _ in range(2))
    unmeasured.module.bound = NoBound(measured.module.bound.chain, measured.module.bound.decoder)
    unmeasured.callbacks.remove(unmeasured.live_bound)
    return {"with": measured, "without": unmeasured, "alone": BoundAlone(measured)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_timing_arguments(parser, rounds=40)
    parser.add_argument("overrides", nargs="*", help="options of train.py")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock = set_up_clock(device, arguments.threads)

    config = configure("objective=simple", *arguments.overrides)
    batch = next(endless_batches(instantiate(config.data), device))
    seconds = interleave(make_steps(config, batch, device, Variant()), clock, arguments.rounds)
    for name, times in seconds.items():
        print(f"{name:8s} {1e3 * median(times):9.2f} ms")
    print(f"with / without   {ratio(seconds['with'], seconds['without'])}")
    print(f"alone / without  {ratio(seconds['alone'], seconds['without'])}")


if __name__ == "__main__":
    main()
