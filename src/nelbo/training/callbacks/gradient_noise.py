"""Where training is noisy: mean and variance of the gradient, by bin of t."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nelbo.cond import rows_of
from nelbo.data.batch import Batch
from nelbo.diffusion.losses import NoisyBatch
from nelbo.diffusion.process import diffuse
from nelbo.option_types import PositiveInt
from nelbo.randomness import generator
from nelbo.training.callbacks.due import Due
from nelbo.training.loggers.charts import Curve, draw_curves
from nelbo.training.loggers.media import log_image, shown_curves
from nelbo.training.module import DiffusionModule
from nelbo.training.ranks import all_reduce_sum
from nelbo.training.sharded.strategy import FullySharded


class GradientNoise(Callback):
    """Log ``gradient_variance/t_...`` and ``gradient_norm2/t_...`` for L_0 and equal ranges of steps.

    For a step that is uniform in its range, ``gradient_variance`` is the trace of the covariance of the
    gradient of the loss of one example, and ``gradient_norm2`` is the squared norm of its mean. Timesteps in
    proportion to the square root of their sum have the smallest variance of the gradient.

    Both come from the mean gradients g, h of the two halves of the batch, of n examples each, with
    independent noise: n |g - h|^2 / 2 and g h are unbiased (compare the gradient noise scale of McCandlish et
    al. 2018). A measurement costs 2 (bins + 1) backward passes of half a batch, as many as bins + 1 training
    steps: 2.2% of the steps with the defaults. It is in float32 and without dropout, and changes neither the
    random numbers of the run nor its state.

    Args:
        every_n_steps: optimizer steps between two measurements.
        bins: number of ranges of the steps after L_0.
    """

    def __init__(self, every_n_steps: PositiveInt = 500, bins: PositiveInt = 10) -> None:
        self.every_n_steps = every_n_steps
        self.bins = bins
        self._is_due = Due(every_n_steps)
        self._curves: dict[int, Curve] = {}  # of this process, by optimizer steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there are two halves of a batch, of weights that are not sharded.

        Raises:
            ValueError: for fewer than two examples on each rank, or with ``trainer=fsdp``.
        """
        if isinstance(trainer.strategy, FullySharded):
            raise ValueError(
                "callbacks=gradient_noise needs weights that are not sharded: use trainer=ddp, or "
                "callbacks=default"
            )
        batch_size: int = trainer.datamodule.batch_size  # pyright: ignore[reportAttributeAccessIssue]
        if batch_size < 2 * trainer.world_size:
            raise ValueError(
                f"callbacks=gradient_noise compares two halves of a batch: data.batch_size={batch_size} must "
                f"be at least {2 * trainer.world_size}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not repeat the measurement of the step that the run resumes from."""
        self._is_due = Due(self.every_n_steps, since=trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measure when it is due, and log on rank 0."""
        if not self._is_due(trainer):
            return
        assert isinstance(pl_module, DiffusionModule)
        ranges = step_ranges(pl_module.bound.chain.num_steps, self.bins)
        key = (pl_module.seed, "gradient noise", trainer.global_step, trainer.global_rank)
        sums = gradient_moments(pl_module, batch, ranges, generator(*key, device=batch.x0.device))
        all_reduce_sum(trainer, sums)
        if not trainer.is_global_zero:
            return
        variance, norm2 = (sums / trainer.world_size).tolist()
        t = pl_module.bound.chain.step_numbers[torch.tensor(ranges) - 1]
        names = ["L_0", *(f"t_{first}_{last}" for first, last in t[1:].tolist())]
        metrics = {f"gradient_variance/{name}": value for name, value in zip(names, variance, strict=True)}
        metrics |= {f"gradient_norm2/{name}": value for name, value in zip(names, norm2, strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
        centre = t.double().mean(1).numpy()
        self._curves[trainer.global_step] = Curve(centre, np.array(variance), np.full(len(centre), np.nan))
        chart = draw_curves(shown_curves(self._curves), "variance of the gradient against t", "per example")
        log_image(trainer, "gradient_variance", chart)


def step_ranges(num_steps: int, bins: int) -> list[tuple[int, int]]:
    """The first and last step of L_0, which is step 1 alone, and of equal ranges of steps 2..K."""
    edges = torch.linspace(2, num_steps + 1, min(bins, num_steps - 1) + 1, dtype=torch.float64).round().long()
    return [(1, 1), *((first, end - 1) for first, end in pairwise(edges.tolist()))]


@torch.enable_grad()
def gradient_moments(
    module: DiffusionModule, batch: Batch, ranges: Sequence[tuple[int, int]], source: torch.Generator
) -> Tensor:
    """Unbiased estimates of the variance and of the squared mean of the gradient of one example.

    Args:
        module: whose network is differentiated; ``.grad`` of its weights does not change.
        batch: of at least two examples.
        ranges: first and last step of each range.
        source: of timesteps and noise, on the device of the batch.

    Returns:
        (2, R) float64: the trace of the covariance, and the squared norm of the mean, in each of R ranges.
    """
    modes = [(part, part.training) for part in module.denoiser.modules()]
    module.denoiser.eval()
    n = len(batch.x0) // 2
    halves = torch.arange(2 * n, device=batch.x0.device).split(n)
    moments: list[Tensor] = []
    for first, last in ranges:
        one, two = (mean_gradient(module, batch, rows, first, last, source) for rows in halves)
        moments.append(torch.stack([0.5 * n * (one - two).square().sum(), (one * two).sum()]))
    for part, mode in modes:
        part.training = mode
    return torch.stack(moments, dim=1)


def mean_gradient(
    module: DiffusionModule, batch: Batch, rows: Tensor, first: int, last: int, source: torch.Generator
) -> Tensor:
    """Gradient of the mean loss of some examples at uniform steps from first to last, (P,) float64."""
    x0, device = batch.x0[rows], batch.x0.device
    index = torch.randint(first, last + 1, (len(x0),), generator=source, device=device)
    offset = torch.rand(len(x0), generator=source, device=device, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=source, device=device, dtype=x0.dtype)
    step = module.bound.chain.step(index, offset)
    cond = rows_of(module.cond(batch), rows)
    prediction = module.denoiser(diffuse(x0, eps, step.t), step.t, cond)
    loss = module.loss(NoisyBatch(x0, eps, step), prediction, module.bound).loss.mean()
    weights = [weight for weight in module.denoiser.network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return torch.cat([gradient.flatten().double() for gradient in gradients])
