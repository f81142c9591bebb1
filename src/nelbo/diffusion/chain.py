"""Chains: the noise levels of a bound or a sampler, from clean to noisy.

A chain of K levels has K steps: step 1 goes from level 1 to data, step i from level i to level i-1. The full
DDPM chain has K = T; a chain with fewer levels ("respacing") keeps the timesteps that the network was trained
with. A schedule in continuous time has finite chains of any levels u in [0, 1], for sampling and for bounds
with finite T. Their limit T = infinity is :class:`ContinuousTime`: it has a bound, but no steps to sample.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nelbo.diffusion.level import InfinitesimalStep, NoiseLevel, Step
from nelbo.diffusion.schedules import NoiseSchedule

BINS = 100  # of u, in which a bound in continuous time is accumulated


class StepSequence(ABC):
    """K steps whose terms add up to a bound, from clean to noisy: a chain, or continuous time in bins.

    Args:
        schedule: the noise schedule.
        t: (K,) the noisier end of each step, increasing: timesteps, int64, or u, float64.

    Attributes:
        num_steps: K.
    """

    def __init__(self, schedule: NoiseSchedule, t: Tensor) -> None:
        self.schedule = schedule
        self.num_steps = t.numel()
        self._t = {torch.device("cpu"): t}

    @abstractmethod
    def step(self, index: Tensor, offset: Tensor | None = None) -> Step | InfinitesimalStep:
        """The steps ``index`` (B,) or () int64 in 1..K; 1 is the step to data.

        Args:
            index: (B,) or () of the noisier ends.
            offset: shape of ``index``, float64 in [0, 1), the position in a bin of :class:`ContinuousTime`;
                steps of a chain have none.
        """

    def t(self, device: torch.device | str = "cpu") -> Tensor:
        """(K,) the noisier end of each step: timesteps, int64, or u, float64; cached per device."""
        device = torch.device(device)
        if device not in self._t:
            self._t[device] = self._t[torch.device("cpu")].to(device)
        return self._t[device]

    @property
    def step_numbers(self) -> Tensor:
        """(K,) int64, the t of each step in tables: its timestep, or in continuous time 1..K."""
        t = self.t()
        return torch.arange(1, self.num_steps + 1) if t.is_floating_point() else t

    def level(self, index: Tensor) -> NoiseLevel:
        """The noisier ends of steps ``index`` (B,) or () int64 in 1..K, on the device of ``index``."""
        return self.schedule.level(self.t(index.device)[index - 1])

    @property
    def noisiest(self) -> NoiseLevel:
        """The last level, that of the prior; scalar ()."""
        return self.level(torch.tensor(self.num_steps))


class Chain(StepSequence):
    """K noise levels of a schedule with timesteps.

    Args:
        schedule: the noise schedule.
        timesteps: (K,) int64, increasing in 1..T; all of them by default.

    Raises:
        ValueError: for timesteps that are not increasing in 1..T, or a schedule in continuous time.
    """

    def __init__(self, schedule: NoiseSchedule, timesteps: Tensor | None = None) -> None:
        T = schedule.T
        if timesteps is None:
            timesteps = torch.arange(1, T + 1)
        in_order = timesteps.numel() > 0 and bool((timesteps.diff() > 0).all())
        if not in_order or timesteps[0] < 1 or timesteps[-1] > T:
            raise ValueError(f"a chain needs increasing timesteps in 1..{T}, not {timesteps}")
        super().__init__(schedule, timesteps)

    def step(self, index: Tensor, offset: Tensor | None = None) -> Step:
        """The steps from levels ``index`` (B,) or () int64 in 1..K to the next cleaner level.

        Args:
            index: (B,) or () of the noisier levels.
            offset: shape of ``index``; not used, a step of a chain has no positions.
        """
        cleaner = self.level((index - 1).clamp(min=1))
        is_first = index == 1
        s = NoiseLevel(
            t=cleaner.t.masked_fill(is_first, 0),
            logsnr=cleaner.logsnr.masked_fill(is_first, torch.inf),
        )
        return Step(s=s, t=self.level(index), next=self.level((index + 1).clamp(max=self.num_steps)))


class LevelChain(Chain):
    """K levels of a schedule in continuous time.

    Args:
        schedule: in continuous time.
        u: (K,) float64, increasing in [0, 1].

    Raises:
        ValueError: for levels that are not increasing in [0, 1], or a schedule with timesteps.
    """

    def __init__(self, schedule: NoiseSchedule, u: Tensor) -> None:
        check_continuous(schedule)
        in_order = u.numel() > 0 and bool((u.diff() > 0).all())
        if not in_order or u[0] < 0.0 or u[-1] > 1.0:
            raise ValueError(f"a chain in continuous time needs increasing levels u in [0, 1], not {u}")
        StepSequence.__init__(self, schedule, u.double())


class ContinuousTime(StepSequence):
    """The limit T -> infinity of chains (VDM, Kingma et al. 2021, section 4).

    Step 1 goes from u = 0 to data, and its term is L_0. Step i in 2..K is a bin of u, from (i - 2) / (K - 1)
    to (i - 1) / (K - 1); its term is the integral over the bin, sampled at one position in it.

    Args:
        schedule: in continuous time.
        bins: number of bins; K is one more.

    Raises:
        ValueError: for a schedule with timesteps.
    """

    def __init__(self, schedule: NoiseSchedule, bins: int = BINS) -> None:
        check_continuous(schedule)
        super().__init__(schedule, torch.arange(bins + 1, dtype=torch.float64) / bins)
        self.bins = bins

    def step(self, index: Tensor, offset: Tensor | None = None) -> InfinitesimalStep:
        """Points of continuous time in the bins ``index`` (B,) or () int64 in 1..K.

        Args:
            index: (B,) or () number of the bin; 1 is the step to data.
            offset: shape of ``index``, float64 in [0, 1), the position in the bin; the middle if it is None.
        """
        offset = torch.full_like(index, 0.5, dtype=torch.float64) if offset is None else offset
        is_first = index == 1
        return self._point((index - 2 + offset) / self.bins, is_first, 1.0 / self.bins)

    def at(self, u: Tensor) -> InfinitesimalStep:
        """Points u (B,) float64 in [0, 1] of continuous time, of width 1; u = 0 is the step to data.

        The mean of the term of a uniform u is the sum of the terms of all bins.
        """
        return self._point(u, u == 0.0, 1.0)

    def _point(self, u: Tensor, is_first: Tensor, width: float) -> InfinitesimalStep:
        point = self.schedule.point(u.masked_fill(is_first, 0.0))
        return InfinitesimalStep(
            t=point.level,
            is_first=is_first,
            rate=point.rate,
            width=width,
            interior=point.interior,
        )


def full_chain(schedule: NoiseSchedule) -> Chain | ContinuousTime:
    """All T timesteps of a schedule, or the limit T -> infinity of one in continuous time."""
    return ContinuousTime(schedule) if schedule.num_steps is None else Chain(schedule)


def finite_chain(chain: StepSequence) -> Chain:
    """The chain itself, for what draws from its reverse steps.

    Raises:
        ValueError: for continuous time, whose steps are infinitesimal.
    """
    if not isinstance(chain, Chain):
        raise ValueError(
            f"a chain of finitely many steps is needed, not {type(chain).__name__}: "
            "Even().chain(schedule, 100), or another spacing"
        )
    return chain


def check_continuous(schedule: NoiseSchedule) -> None:
    """Check that levels can be at any u.

    Raises:
        ValueError: for a schedule with timesteps.
    """
    if schedule.num_steps is not None:
        raise ValueError(
            f"{type(schedule).__name__} has {schedule.num_steps} timesteps: levels u need num_steps=None"
        )
