"""A schedule that is reshaped during training until every step costs the same.

    logsnr(u) = max + interior(u) (min - max)

In continuous time the bound depends on the ends only, so the interior is free. Here the ends are fixed, and
the interior is chosen so that the integrand of the bound is constant in u: then a term drawn at uniform u
varies between examples and noise draws, and no longer with u. That is the purpose of VDM's learned interior
(Kingma et al. 2021, section 5.2), without a network and without gradients. The density of levels in
proportion to their cost, from an exponential moving average in bins of logsnr, is the adaptive noise schedule
of Kingma & Gao (2023), there for the weighted loss and here for the bound. The variance itself is smallest
for a density in proportion to sqrt(E[cost^2]); the two are equal where the relative spread of the cost is the
same at all levels.
"""

from typing import Any

import torch
from torch import Tensor

from nelbo.diffusion.schedules.linear_logsnr import LinearLogSNRSchedule


class AdaptiveSchedule(LinearLogSNRSchedule):
    """Fixed ends, and a piecewise linear interior that follows the costs of the training batches.

    logsnr is divided into ``bins`` equal bins. Each occupies a share of u that is its share of the denoising
    part of the bound. The curve changes slowly: costs are averaged over about 1 / (1 - decay) batches, and
    training moves the curve to this average after each validation only, so that a validation and the batches
    before it are measured on one curve. The weights of ``loss=simple``, ``min_snr`` and ``p2`` are per unit
    of u, so these objectives change with the curve; ``vlb``, ``edm`` and ``flow`` do not.

    The curve and the costs are buffers in float64, also in a module that is converted to another precision.

    Args:
        num_steps: None: continuous time.
        logsnr_max: see :class:`NoiseSchedule`.
        logsnr_min: see :class:`NoiseSchedule`.
        half_bin: see :class:`NoiseSchedule`.
        bins: of logsnr.
        decay: of the averages, per batch.
        floor: share of u that is spread evenly over logsnr, so that every bin is drawn.

    Raises:
        ValueError: for a number of timesteps, or arguments out of range.
    """

    positions: Tensor  # (bins + 1,) u at the edges of the bins of logsnr, clean to noisy
    cost: Tensor  # (bins,) decayed sums of the costs of the draws in a bin
    count: Tensor  # (bins,) decayed numbers of these draws

    def __init__(
        self,
        num_steps: int | None = None,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
        bins: int = 100,
        decay: float = 0.99,
        floor: float = 0.01,
    ) -> None:
        if num_steps is not None:
            raise ValueError(
                f"schedule.num_steps={num_steps}: with timesteps the bound would change with the curve of "
                "schedule=adaptive: use schedule.num_steps=null"
            )
        if bins < 1:
            raise ValueError(f"schedule.bins={bins} must be at least 1")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"schedule.decay={decay} must be inside [0, 1)")
        if not 0.0 < floor <= 1.0:
            raise ValueError(f"schedule.floor={floor} must be inside (0, 1]")
        super().__init__(None, logsnr_max, logsnr_min, half_bin)
        self.decay = decay
        self.floor = floor
        self.register_buffer("positions", torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64))
        self.register_buffer("cost", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(bins, dtype=torch.float64))

    def interior(self, u: Tensor) -> Tensor:
        """Share of the way from the clean to the noisy end at u in [0, 1], same shape as ``u``."""
        positions = self.positions.to(u.device)
        index = self.bin(u)
        low, high = positions[index], positions[index + 1]
        return (index + (u - low) / (high - low)) / len(self.cost)

    def update(self, u: Tensor, nats: Tensor) -> None:
        """Record costs of a global batch. The curve does not change before :meth:`reshape`.

        Args:
            u: (B,) positions of draws.
            nats: (B,) the integrand of the bound at u, in nats per unit of u.
        """
        u, nats = u.detach().to("cpu", torch.float64), nats.detach().to("cpu", torch.float64)
        # on the CPU, where sums are the same on all ranks
        index, width = self.bin(u), self.positions.diff().cpu()
        cost, count = torch.zeros_like(width), torch.zeros_like(width)
        cost.index_add_(0, index, nats * width[index])
        count.index_add_(0, index, torch.ones_like(nats))
        self.cost.mul_(self.decay).add_(cost.to(self.cost.device))
        self.count.mul_(self.decay).add_(count.to(self.count.device))

    def reshape(self) -> None:
        """Move the curve to the averages; nothing changes before every bin was drawn.

        A second call without an update in between has no effect.
        """
        cost = (self.cost / self.count).cpu()
        if not (cost.isfinite().all() and cost.sum() > 0.0):
            return
        width = (1.0 - self.floor) * cost / cost.sum() + self.floor / len(cost)
        self.positions[1:-1] = width.cumsum(0)[:-1].to(self.positions.device)

    def bin(self, u: Tensor) -> Tensor:
        """Bin of logsnr at u in [0, 1], int64 from 0, same shape as ``u``."""
        positions = self.positions.to(u.device)
        return torch.searchsorted(positions, u.detach(), right=True).sub(1).clamp(0, len(self.cost) - 1)

    def _on_curve(self, u: Tensor) -> Tensor:
        return super()._on_curve(self.interior(u))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Follow a change of device, not of precision."""

        def move(x: Tensor) -> Tensor:
            return x.to(fn(x).device)

        return super()._apply(move, recurse)  # pyright: ignore[reportUnknownMemberType]
