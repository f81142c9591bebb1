"""Noise schedules: from a timestep, or from continuous time, to a noise level.

A schedule is a decreasing curve logsnr(u), u in (0, 1]. With T timesteps it is evaluated at T points; as
published, timestep t is at u = t/T. Truncation keeps the curve and moves its ends: the T timesteps are spaced
evenly over [u_clean, u_noisy], the part of the curve between ``logsnr_max`` and ``logsnr_min``. No value is
clamped.

In continuous time (``num_steps`` None, T = infinity) the levels are that whole part of the curve, and time u
in [0, 1] runs from its clean to its noisy end. A curve without a finite end is cut at half a bin of the data
(at logsnr 13.3 for continuous data) and at logsnr -10.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nelbo.diffusion.level import NoiseLevel

# logsnr_max=auto keeps a published start that is cleaner than half a bin by less than this, in nats of
# logsnr. The cosine schedule with T = 4000 (Improved DDPM) starts 0.45 nats below half a bin of 8-bit images.
AUTO_TOLERANCE = 0.5
MAX_STEPS = 100_000  # published schedules have up to 4000
# Ends in continuous time of curves that have none: VDM's initial clean end, and a noisy end at which L_T is
# at most 2.3e-5 nats per dimension for data in [-1, 1].
CLEAN_END = 13.3
NOISY_END = -10.0
NO_SIGNAL = -50.0  # a curve that is below it at u = 1 ends without signal, up to rounding


def check_num_steps(num_steps: int | None) -> None:
    """Check T before tables of that size are allocated.

    Raises:
        ValueError: outside 1..100,000.
    """
    if num_steps is None:
        return
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"schedule.num_steps={num_steps}: expected 1 to {MAX_STEPS} steps")


@dataclass(frozen=True)
class CurvePoint:
    """Points of a schedule in continuous time.

    Attributes:
        level: noise levels of shape (B,).
        rate: (B,) float64, -dlogsnr/du.
        interior: tensors (B,) through which the interior of a learned schedule receives its gradient, for
            hooks of a loss; empty for a schedule without a learned interior.
    """

    level: NoiseLevel
    rate: Tensor
    interior: tuple[Tensor, ...] = ()


class NoiseSchedule(nn.Module, ABC):
    """A noise schedule with timesteps 1..T, or in continuous time.

    Args:
        num_steps: T, the number of timesteps; None for continuous time.
        logsnr_max: the cleanest level (t = 1). ``"paper"``: as published. ``"auto"``: as published, or at
            half a bin of the data, whichever is noisier (a published start within half a nat of that is kept,
            so linear, sigmoid, and cosine up to T = 4000 are as published on 8-bit images). A number: that
            log signal-to-noise ratio.
        logsnr_min: the noisiest level (t = T): ``"paper"`` or a number.
        half_bin: half the width of a quantisation bin of the data; None for continuous data.

    Raises:
        ValueError: for a number of steps outside 1..100,000, or ends that are not on the curve in this order.
    """

    zero_terminal_snr = False  # whether logsnr may be -inf at t = T, which eps-prediction does not allow

    def __init__(
        self,
        num_steps: int | None = 1000,
        logsnr_max: float | str = "auto",
        logsnr_min: float | str = "paper",
        half_bin: float | None = None,
    ) -> None:
        super().__init__()
        check_num_steps(num_steps)
        self.num_steps = num_steps
        self.half_bin = half_bin
        logsnr_max = checked_end("logsnr_max", logsnr_max, ("auto", "paper"))
        logsnr_min = checked_end("logsnr_min", logsnr_min, ("paper",))
        if num_steps is None:
            self._ends = self._continuous_ends(logsnr_max, logsnr_min)
            return
        self._ends = u_clean, u_noisy = self._truncate(num_steps, logsnr_max, logsnr_min)
        u = torch.linspace(u_clean, u_noisy, num_steps, dtype=torch.float64)
        u[-1] = u_noisy  # for T = 1 linspace returns the clean end
        self._tables = {torch.device("cpu"): self._decreasing(self.logsnr(u))}

    @property
    def T(self) -> int:  # noqa: N802
        """The number of timesteps.

        Raises:
            ValueError: in continuous time.
        """
        if self.num_steps is None:
            raise ValueError(
                f"{type(self).__name__} with num_steps=None is in continuous time and has no timesteps: "
                "LevelChain and spacings choose levels u"
            )
        return self.num_steps

    @abstractmethod
    def logsnr(self, u: Tensor) -> Tensor:
        """logsnr at u in (0, 1], float64, decreasing, same shape as ``u``."""

    def position(self, logsnr: float) -> float:
        """The u at which the curve has this logsnr, by bisection.

        Raises:
            ValueError: for a logsnr that is not on the curve.
        """
        low, high = 1e-12, 1.0
        if not self._at(high) <= logsnr <= self._at(low):
            raise ValueError(
                f"logsnr {logsnr:g} is not on the curve of {type(self).__name__}, "
                f"which runs from {self._at(low):.4g} to {self._at(high):.4g}"
            )
        for _ in range(60):  # bisection of (0, 1] to the precision of float64
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._at(middle) > logsnr else (low, middle)
        return high

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise levels of timesteps ``t``, (B,) or () int64 in 1..T, on the device of ``t``.

        In continuous time ``t`` is u in [0, 1], float64.
        """
        if self.num_steps is None:
            return NoiseLevel(t, self.logsnr(self._on_curve(t)))
        return NoiseLevel(t, self.table(t.device)[t - 1])

    def point(self, u: Tensor) -> CurvePoint:
        """Noise levels in continuous time and their rates, at u (B,) in [0, 1], float64."""
        with torch.inference_mode(False), torch.enable_grad():
            at = u.detach().clone().requires_grad_()
            logsnr = self.level(at).logsnr
            (slope,) = torch.autograd.grad(logsnr.sum(), at)
        return CurvePoint(NoiseLevel(u, logsnr.detach()), -slope)

    def at_logsnr(self, logsnr: Tensor) -> Tensor:
        """The time of each logsnr (B,) between the ends, (B,) float64.

        In continuous time u in [0, 1], by bisection. With timesteps t in [1, T], linear in logsnr between
        neighbouring timesteps.
        """
        if self.num_steps is not None:
            table = self.table(logsnr.device)
            index = torch.searchsorted(-table, -logsnr.contiguous()).clamp(1, max(1, self.num_steps - 1))
            cleaner, noisier = table[index - 1], table[index.clamp(max=self.num_steps - 1)]
            share = ((cleaner - logsnr) / (cleaner - noisier)).clamp(0.0, 1.0)
            return index + share.nan_to_num(0.0)  # of a chain of one step
        low, high = torch.zeros_like(logsnr), torch.ones_like(logsnr)
        for _ in range(60):
            middle = 0.5 * (low + high)
            cleaner = self.level(middle).logsnr > logsnr
            low, high = torch.where(cleaner, middle, low), torch.where(cleaner, high, middle)
        return high

    def finite_ends(self) -> tuple[float, float]:
        """The cleanest and the noisiest finite logsnr.

        They differ from the ends of the chain only for a schedule whose last timestep has no signal.
        """
        if self.num_steps is None:
            logsnr = self.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).logsnr
        else:
            logsnr = self.table()
        finite = logsnr[logsnr.isfinite()]
        return finite[0].item(), finite[-1].item()

    def table(self, device: torch.device | str = "cpu") -> Tensor:
        """logsnr of t = 1..T, (T,) float64; cached per device."""
        device = torch.device(device)
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]

    def _on_curve(self, u: Tensor) -> Tensor:
        """The position on the curve of time u in [0, 1]."""
        u_clean, u_noisy = self._ends
        return u_clean + u * (u_noisy - u_clean)

    def _continuous_ends(self, logsnr_max: float | str, logsnr_min: float | str) -> tuple[float, float]:
        """The positions on the curve of u = 0 and u = 1.

        Raises:
            ValueError: for ends that are not on the curve, or not in this order.
        """
        clean, noisy = self._at(0.0), self._at(1.0)
        if logsnr_max == "auto" and self.half_bin is not None:
            logsnr_max = min(clean, half_bin_logsnr(self.half_bin))
        elif isinstance(logsnr_max, str):
            logsnr_max = clean if math.isfinite(clean) else CLEAN_END
        if isinstance(logsnr_min, str):
            logsnr_min = noisy if noisy > NO_SIGNAL else NOISY_END
        if not logsnr_max > logsnr_min:
            raise ValueError(
                f"schedule: the cleanest level (logsnr_max={logsnr_max}) must be cleaner than the "
                f"noisiest (logsnr_min={logsnr_min})"
            )
        u_clean = 0.0 if logsnr_max == clean else self._end_position("logsnr_max", logsnr_max)
        u_noisy = 1.0 if logsnr_min == noisy else self._end_position("logsnr_min", logsnr_min)
        return u_clean, u_noisy

    def _truncate(
        self, num_steps: int, logsnr_max: float | str, logsnr_min: float | str
    ) -> tuple[float, float]:
        u_clean = 1.0 / num_steps
        if logsnr_max == "auto":
            logsnr_max = self._auto_start(self.logsnr(torch.tensor(u_clean, dtype=torch.float64)).item())
        if not isinstance(logsnr_max, str):
            u_clean = self._end_position("logsnr_max", logsnr_max)
        is_published = isinstance(logsnr_min, str)
        u_noisy = 1.0 if is_published else self._end_position("logsnr_min", logsnr_min)
        if num_steps > 1 and u_clean >= u_noisy:
            raise ValueError(
                f"schedule: the cleanest level (logsnr_max={logsnr_max}) must be cleaner than the "
                f"noisiest (logsnr_min={logsnr_min})"
            )
        return u_clean, u_noisy

    def _end_position(self, name: str, logsnr: float) -> float:
        try:
            return self.position(logsnr)
        except ValueError as error:
            raise ValueError(f"schedule.{name}: {error}") from error

    def _at(self, u: float) -> float:
        return self.logsnr(torch.tensor(u, dtype=torch.float64)).item()

    def _auto_start(self, published: float) -> float | str:
        if self.half_bin is None:
            return "paper"
        fits = half_bin_logsnr(self.half_bin)
        return fits if published - fits > AUTO_TOLERANCE else "paper"

    def _decreasing(self, table: Tensor) -> Tensor:
        name = f"{type(self).__name__} with {self.num_steps} steps"
        finite = table.isfinite()
        if self.zero_terminal_snr:
            finite[-1] = not table[-1].isnan()
        if not finite.all():
            t = int(finite.logical_not().int().argmax()) + 1
            raise ValueError(f"{name} is not a chain: its logsnr at t = {t} is {table[t - 1]:g}")
        if not (table.diff() < 0).all():
            t = int((table.diff() >= 0).int().argmax()) + 1
            raise ValueError(
                f"{name} is not a chain: its levels do not get noisier at every step, for logsnr goes from "
                f"{table[t - 1]:g} at t = {t} to {table[t]:g} at t = {t + 1}"
            )
        return table


def half_bin_logsnr(half_bin: float) -> float:
    """The logsnr at which noise_scale / signal_scale is half a quantisation bin."""
    return -2.0 * math.log(half_bin)


def checked_end(name: str, value: float | str, words: tuple[str, ...]) -> float | str:
    """Check that an end is a number or one of ``words``.

    Raises:
        ValueError: for another word.
    """
    if isinstance(value, str) and value not in words:
        raise ValueError(f"schedule.{name}={value}: expected a number or {' or '.join(words)}")
    return value
