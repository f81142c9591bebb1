"""Chains: the noise levels of a bound or a sampler, from clean to noisy.

A chain of K levels has K steps: step 1 goes from level 1 to data, step i from level i to level i-1. The full
DDPM chain has K = T; a chain with fewer levels ("respacing") keeps the timesteps that the network was trained
with. A schedule in continuous time has finite chains of any levels u in [0, 1], for sampling and for bounds
with finite T, and one chain with T = infinity.
"""

import torch
from torch import Tensor

from nelbo.diffusion.level import InfinitesimalStep, NoiseLevel, Step, data_level
from nelbo.diffusion.schedules import NoiseSchedule

BINS = 100  # of u, in which a bound in continuous time is accumulated


class Chain:
    """K noise levels of a schedule.

    Args:
        schedule: the noise schedule.
        timesteps: (K,) int64, increasing in 1..T; all of them by default.

    Raises:
        ValueError: for timesteps that are not increasing in 1..T.
    """

    def __init__(self, schedule: NoiseSchedule, timesteps: Tensor | None = None) -> None:
        T = schedule.num_steps
        assert T is not None, "a schedule in continuous time has no timesteps: full_chain and LevelChain"
        if timesteps is None:
            timesteps = torch.arange(1, T + 1)
        in_order = timesteps.numel() > 0 and bool((timesteps.diff() > 0).all())
        if not in_order or timesteps[0] < 1 or timesteps[-1] > T:
            raise ValueError(f"a chain needs increasing timesteps in 1..{T}, not {timesteps}")
        self.schedule = schedule
        self.num_steps = timesteps.numel()
        self._timesteps = {torch.device("cpu"): timesteps}

    def timesteps(self, device: torch.device | str = "cpu") -> Tensor:
        """(K,) int64, increasing; cached per device. In continuous time 1..K, the numbers of the steps."""
        return _on_device(self._timesteps, device)

    def level(self, index: Tensor) -> NoiseLevel:
        """Noise levels ``index`` (B,) or () int64 in 1..K, on the device of ``index``."""
        return self.schedule.level(self.timesteps(index.device)[index - 1])

    def step(self, index: Tensor, offset: Tensor | None = None) -> Step:
        """The steps from levels ``index`` (B,) or () int64 in 1..K to the next cleaner level.

        Args:
            index: (B,) or () of the noisier levels.
            offset: shape of ``index``, float64 in [0, 1), the position in a bin of :class:`ContinuousChain`;
                other chains have no bins.
        """
        cleaner = self.level((index - 1).clamp(min=1))
        is_first = index == 1
        s = NoiseLevel(
            t=cleaner.t.masked_fill(is_first, 0),
            logsnr=cleaner.logsnr.masked_fill(is_first, torch.inf),
        )
        return Step(s=s, t=self.level(index), next=self.level((index + 1).clamp(max=self.num_steps)))

    @property
    def noisiest(self) -> NoiseLevel:
        """The last level, that of the prior; scalar ()."""
        return self.level(torch.tensor(self.num_steps))


class LevelChain(Chain):
    """K levels of a schedule in continuous time.

    Args:
        schedule: in continuous time.
        u: (K,) float64, increasing in [0, 1].

    Raises:
        ValueError: for levels that are not increasing in [0, 1].
    """

    def __init__(self, schedule: NoiseSchedule, u: Tensor) -> None:
        in_order = u.numel() > 0 and bool((u.diff() > 0).all())
        if not in_order or u[0] < 0.0 or u[-1] > 1.0:
            raise ValueError(f"a chain in continuous time needs increasing levels u in [0, 1], not {u}")
        self.schedule = schedule
        self.num_steps = u.numel()
        self._timesteps = {torch.device("cpu"): torch.arange(1, u.numel() + 1)}
        self._u = {torch.device("cpu"): u.double()}

    def u(self, device: torch.device | str = "cpu") -> Tensor:
        """(K,) float64, the levels; cached per device."""
        return _on_device(self._u, device)

    def level(self, index: Tensor) -> NoiseLevel:
        """Noise levels ``index`` (B,) or () int64 in 1..K, on the device of ``index``."""
        return self.schedule.level(self.u(index.device)[index - 1])


class ContinuousChain(LevelChain):
    """The limit T -> infinity (VDM, Kingma et al. 2021, section 4).

    Step 1 goes from u = 0 to data, and its term is L_0. Step i in 2..K is a bin of u, from (i - 2) / (K - 1)
    to (i - 1) / (K - 1); its term is the integral over the bin, sampled at one position in it.

    Args:
        schedule: in continuous time.
        bins: number of bins; K is one more.
    """

    def __init__(self, schedule: NoiseSchedule, bins: int = BINS) -> None:
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
        u = ((index - 2 + offset) / self.bins).masked_fill(is_first, 0.0)
        point = self.schedule.point(u)
        t = point.level
        return InfinitesimalStep(
            s=data_level(t),
            t=t,
            next=t,
            to_data=is_first,
            rate=point.rate,
            width=1.0 / self.bins,
            interior_scale=point.interior_scale,
        )


def full_chain(schedule: NoiseSchedule) -> Chain:
    """All T timesteps of a schedule, or the limit T -> infinity of one in continuous time."""
    return ContinuousChain(schedule) if schedule.num_steps is None else Chain(schedule)


def _on_device(cache: dict[torch.device, Tensor], device: torch.device | str) -> Tensor:
    device = torch.device(device)
    if device not in cache:
        cache[device] = cache[torch.device("cpu")].to(device)
    return cache[device]
