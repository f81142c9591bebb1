"""Chains: the noise levels of a bound or a sampler, from clean to noisy.

A chain of K levels has K steps: step 1 goes from level 1 to data, step i from level i to level i-1. The full
DDPM chain has K = T; a chain with fewer levels ("respacing") keeps the timesteps that the network was trained
with.
"""

import torch
from torch import Tensor

from nelbo.diffusion.level import NoiseLevel, Step
from nelbo.diffusion.schedules import NoiseSchedule


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
        if timesteps is None:
            timesteps = torch.arange(1, T + 1)
        in_order = timesteps.numel() > 0 and bool((timesteps.diff() > 0).all())
        if not in_order or timesteps[0] < 1 or timesteps[-1] > T:
            raise ValueError(f"a chain needs increasing timesteps in 1..{T}, not {timesteps}")
        self.schedule = schedule
        self.num_steps = timesteps.numel()
        self._timesteps = {torch.device("cpu"): timesteps}

    def timesteps(self, device: torch.device | str = "cpu") -> Tensor:
        """(K,) int64, increasing; cached per device."""
        device = torch.device(device)
        if device not in self._timesteps:
            self._timesteps[device] = self._timesteps[torch.device("cpu")].to(device)
        return self._timesteps[device]

    def level(self, index: Tensor) -> NoiseLevel:
        """Noise levels ``index`` (B,) or () int64 in 1..K, on the device of ``index``."""
        return self.schedule.level(self.timesteps(index.device)[index - 1])

    def step(self, index: Tensor) -> Step:
        """The steps from levels ``index`` (B,) or () int64 in 1..K to the next cleaner level."""
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
