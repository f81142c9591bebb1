"""Noise schedules of ``DDPMScheduler`` of diffusers, defined by their betas."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.diffusion.schedules import NoiseSchedule

# of DDPMScheduler, for options that are not in scheduler_config.json
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
    """The schedule of a ``DDPMScheduler``, in float64 instead of float32.

    Between timesteps logsnr is interpolated linearly.

    Args:
        num_train_timesteps: T.
        beta_schedule: ``linear``, ``scaled_linear``, ``squaredcos_cap_v2`` or ``sigmoid``.
        beta_start: beta_1; no effect on ``squaredcos_cap_v2``.
        beta_end: beta_T; no effect on ``squaredcos_cap_v2``.
        trained_betas: (T,) betas, instead of the options above.
        rescale_betas_zero_snr: rescale to zero terminal SNR, logsnr = -inf at T (Lin et al. 2024).
        half_bin: see :class:`NoiseSchedule`.

    Raises:
        ValueError: for an unknown ``beta_schedule``, or betas outside (0, 1).
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
            betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        inside = (betas > 0.0) & (betas < 1.0)
        inside[-1:] |= betas[-1:] == 1.0  # no signal at T
        if betas.numel() < 2 or not bool(inside.all()):
            raise ValueError("scheduler_config.json: the betas must be in (0, 1)")
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        if rescale_betas_zero_snr:
            log_alpha_bar = rescale_zero_snr(log_alpha_bar)
        self.zero_terminal_snr = bool(log_alpha_bar[-1].isneginf())
        self._logsnr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))  # of t = 1..T
        super().__init__(betas.numel(), logsnr_max="paper", half_bin=half_bin)

    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1]; constant up to u = 1 / T."""
        position = (u * self.T - 1.0).clamp(min=0.0)
        after = position.ceil().clamp(max=self.T - 1).long()
        before = (after - 1).clamp(min=0)
        weight = position - before
        between = torch.lerp(self._logsnr[before], self._logsnr[after], weight)
        # no interpolation towards -inf
        return torch.where(self._logsnr[after].isneginf() & (weight > 0), -torch.inf, between)


def make_betas(beta_schedule: str, num_steps: int, start: float, end: float) -> Tensor:
    """The betas of a named schedule, (T,) float64.

    Raises:
        ValueError: for an unknown ``beta_schedule``.
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


def rescale_zero_snr(log_alpha_bar: Tensor) -> Tensor:
    """Rescale log(alpha_bar) (T,) to zero terminal SNR (Lin et al. 2024, algorithm 1).

    sqrt(alpha_bar) is shifted and scaled to be 0 at T and unchanged at 1.
    """
    signal = (0.5 * log_alpha_bar).exp()
    return 2.0 * ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).log()


def betas_of(schedule: NoiseSchedule) -> Tensor:
    """beta_t of t = 1..T, (T,) float64."""
    log_alpha_bar = F.logsigmoid(schedule.table())
    return -torch.expm1(log_alpha_bar.diff(prepend=log_alpha_bar.new_zeros(1)))


def describe_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
    """The fields of scheduler_config.json: a named schedule if diffusers computes the same betas."""
    betas = betas_of(schedule)
    start, end = betas[0].item(), betas[-1].item()
    fields = DEFAULTS | {"num_train_timesteps": schedule.num_steps}
    ends = {"beta_start": start, "beta_end": end}
    for name in ("linear", "squaredcos_cap_v2"):
        made = make_betas(name, schedule.T, start, end)
        # below the resolution of float32 in diffusers, and above the rounding errors of both computations
        if torch.allclose(betas, made, rtol=1e-9, atol=0.0):
            return fields | {"beta_schedule": name} | (ends if name == "linear" else {})
    return fields | {"trained_betas": betas.tolist()}
