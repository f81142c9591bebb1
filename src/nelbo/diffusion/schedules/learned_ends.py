"""VDM's schedule with learned ends (Kingma et al. 2021, section 5.1): logsnr is linear in u.

In continuous time the bound depends on the schedule only through its ends. Both are trained on the bound,
L_0 at the clean end and L_T at the noisy one included. The line between them stays straight.
"""

import torch
from torch import Tensor, nn

from nelbo.diffusion.level import NoiseLevel
from nelbo.diffusion.schedules.base import CLEAN_END, CurvePoint, NoiseSchedule, checked_end, half_bin_logsnr


class LearnedSchedule(NoiseSchedule):
    """A schedule with parameters, in continuous time. Its parameters are trained by ``loss=vlb``."""

    def _continuous_ends(self, logsnr_max: float | str, logsnr_min: float | str) -> tuple[float, float]:
        return 0.0, 1.0  # the whole curve: its ends are parameters


class LearnedEnds(LearnedSchedule):
    """logsnr falls linearly with u between two learned ends.

    The parameters are float32; levels are computed in float64.

    Args:
        num_steps: None: continuous time. A table of T levels would not follow the parameters.
        initial_max: logsnr at u = 0 at the start of training. ``"auto"``: 13.3 as published, or at half a bin
            of the data, whichever is noisier: at cleaner levels a network without Fourier features cannot
            learn the values of the data, and training moves an end slowly.
        initial_min: logsnr at u = 1 at the start of training.
        half_bin: half the width of a quantisation bin of the data; None for continuous data.

    Raises:
        ValueError: for a number of timesteps, or ends that are not in this order.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        initial_max: float | str = "auto",
        initial_min: float = -5.0,
        half_bin: float | None = None,
    ) -> None:
        if num_steps is not None:
            raise ValueError(
                f"schedule.num_steps={num_steps}: a learned schedule is in continuous time, "
                "schedule.num_steps=null"
            )
        initial_max = checked_end("initial_max", initial_max, ("auto",))
        if isinstance(initial_max, str):
            initial_max = CLEAN_END if half_bin is None else min(CLEAN_END, half_bin_logsnr(half_bin))
        if not initial_max > initial_min:
            raise ValueError(
                f"schedule: initial_max={initial_max} must be cleaner than initial_min={initial_min}"
            )
        super().__init__(num_steps, initial_max, initial_min, half_bin)
        self.max = nn.Parameter(torch.tensor(initial_max))
        self.min = nn.Parameter(torch.tensor(initial_min))

    def point(self, u: Tensor) -> CurvePoint:
        """Noise levels and rates at u (B,) in [0, 1], float64, differentiable in the parameters."""
        clean, noisy = self.max.to(u), self.min.to(u)
        return CurvePoint(NoiseLevel(u, self.logsnr(u)), (clean - noisy).expand_as(u))

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in [0, 1], same shape as ``u``, differentiable in the parameters."""
        clean, noisy = self.max.to(u), self.min.to(u)
        return clean + self.interior(u) * (noisy - clean)

    def interior(self, u: Tensor) -> Tensor:
        """Share of the way from the clean to the noisy end at u (B,), from 0 at u = 0 to 1 at u = 1."""
        return u
