"""Noise schedules as diffusers' ``DDPMScheduler`` describes them: by their betas."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule

# of DDPMScheduler, for what a scheduler_config.json leaves out
DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}
MAX_BETA = 0.999  # of squaredcos_cap_v2


class DiffusersSchedule(NoiseSchedule):
    """A schedule of a ``DDPMScheduler``, in float64 where diffusers has float32.

    Between timesteps logsnr is interpolated linearly.

    Args:
        num_train_timesteps: T.
        beta_schedule: ``linear``, ``scaled_linear``, ``squaredcos_cap_v2`` or ``sigmoid``.
        beta_start: beta_1; without effect on ``squaredcos_cap_v2``.
        beta_end: beta_T; without effect on ``squaredcos_cap_v2``.
        trained_betas: (T,), in place of all of these.
        rescale_betas_zero_snr: leave no signal at T, where logsnr is then -inf (Lin et al. 2024).
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: for another schedule, and for betas that are not inside (0, 1).
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        trained_betas: Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        half_bin: float | None = None,
    ) -> None:
        if trained_betas is not None:
            betas = torch.tensor(list(trained_betas), dtype=torch.float64)
        else:
            betas = made_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        inside = (betas > 0.0) & (betas < 1.0)
        inside[-1:] |= betas[-1:] == 1.0  # no signal at T
        if betas.numel() < 2 or not bool(inside.all()):
            raise ValueError("scheduler_config.json: its betas are not all inside (0, 1)")
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        if rescale_betas_zero_snr:
            log_alpha_bar = rescaled(log_alpha_bar)
        self.zero_terminal_snr = bool(log_alpha_bar[-1].isneginf())
        self._logsnr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))  # of t = 1..T
        super().__init__(betas.numel(), logsnr_max="paper", half_bin=half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1]; up to 1 / T that of t = 1."""
        position = (u * self.num_steps - 1.0).clamp(min=0.0)
        after = position.ceil().clamp(max=self.num_steps - 1).long()
        before = (after - 1).clamp(min=0)
        weight = position - before
        between = torch.lerp(self._logsnr[before], self._logsnr[after], weight)
        # towards -inf there is nothing in between
        return torch.where(self._logsnr[after].isneginf() & (weight > 0), -torch.inf, between)


def made_betas(beta_schedule: str, num_steps: int, start: float, end: float) -> Tensor:
    """The betas that diffusers makes by itself, (T,) float64.

    Raises:
        ValueError: for a schedule that is not supported.
    """
    if beta_schedule == "linear":
        return torch.linspace(start, end, num_steps, dtype=torch.float64)
    if beta_schedule == "scaled_linear":
        return torch.linspace(math.sqrt(start), math.sqrt(end), num_steps, dtype=torch.float64) ** 2
    if beta_schedule == "sigmoid":
        return start + (end - start) * torch.linspace(-6.0, 6.0, num_steps, dtype=torch.float64).sigmoid()
    if beta_schedule == "squaredcos_cap_v2":
        u = torch.linspace(0.0, 1.0, num_steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2
        return (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA)
    raise ValueError(f"scheduler_config.json: beta_schedule={beta_schedule} is not supported")


def rescaled(log_alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar) of t = 1..T with sqrt(alpha_bar) shifted and scaled to be 0 at T and as it was at 1.

    Lin et al. 2024, algorithm 1.
    """
    signal = (0.5 * log_alpha_bar).exp()
    return 2.0 * ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).log()


def betas_of(schedule: NoiseSchedule) -> Tensor:
    """beta_t of t = 1..T, (T,) float64."""
    log_alpha_bar = F.logsigmoid(schedule.table())
    return -torch.expm1(log_alpha_bar.diff(prepend=log_alpha_bar.new_zeros(1)))


def describe_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
    """The fields of scheduler_config.json for a schedule: by name where diffusers makes the same betas."""
    betas = betas_of(schedule)
    fields = DEFAULTS | {"num_train_timesteps": schedule.num_steps}
    for name in ("linear", "squaredcos_cap_v2"):
        ends = {"beta_start": betas[0].item(), "beta_end": betas[-1].item()}
        made = made_betas(name, schedule.num_steps, **{key[5:]: value for key, value in ends.items()})
        # far below the float32 that diffusers turns them into, and above the rounding of either computation
        if torch.allclose(betas, made, rtol=1e-9, atol=0.0):
            return fields | {"beta_schedule": name} | (ends if name == "linear" else {})
    return fields | {"trained_betas": betas.tolist()}
