"""Spacings: the K of a schedule's T timesteps that a shorter chain has.

A chain of one step is [T] for every spacing, because sampling starts from noise; only ``optimal`` may choose
another one.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nelbo.diffusion.chain import Chain, LevelChain
from nelbo.diffusion.schedules import NoiseSchedule


class Spacing(ABC):
    """Chooses the timesteps of a chain."""

    @abstractmethod
    def timesteps(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """(K,) int64, strictly increasing in 1..T, on the CPU.

        Args:
            schedule: T and the noise levels.
            steps: K in 1..T.
        """

    @abstractmethod
    def positions(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """(K,) float64, the levels u of a chain in continuous time, increasing in [0, 1], on the CPU.

        Args:
            schedule: in continuous time.
            steps: K.

        Raises:
            ValueError: for a spacing of timesteps only.
        """

    def chain(self, schedule: NoiseSchedule, steps: int | None) -> Chain:
        """The chain of ``steps`` levels, or of all T if it is None.

        Raises:
            ValueError: for a number of steps outside 1..T, or none for a schedule in continuous time.
        """
        if schedule.num_steps is None:
            if steps is None:
                raise ValueError(
                    "sampler.steps=null: a model in continuous time has no number of timesteps: give one, "
                    "sampler.steps=100 (steps=100 from Python)"
                )
            check_steps(schedule, steps)
            return LevelChain(schedule, self.positions(schedule, steps))
        if steps is None:
            return Chain(schedule)
        check_steps(schedule, steps)
        if steps == schedule.num_steps:
            return Chain(schedule)
        return Chain(schedule, self.timesteps(schedule, steps))


def check_steps(schedule: NoiseSchedule, steps: int) -> None:
    """Check the length of a chain.

    Raises:
        ValueError: for a number of steps outside 1..T.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a chain has at least 1 step")
    if schedule.num_steps is not None and steps > schedule.num_steps:
        raise ValueError(f"steps={steps}: the schedule has only {schedule.num_steps} timesteps")


def grid(start: float, end: float, steps: int) -> Tensor:
    """(K,) float64, evenly spaced from ``start`` to ``end`` inclusive; [``end``] for one step."""
    positions = torch.linspace(start, end, steps, dtype=torch.float64)
    positions[-1] = end
    return positions


def rounded(positions: Tensor, T: int) -> Tensor:
    """Round non-decreasing positions (K,), K <= T, to strictly increasing timesteps in 1..T, (K,) int64.

    Where several round to the same timestep, all but the first move up; those beyond T move back down.
    """
    K = len(positions)
    rank = torch.arange(K)
    t = positions.round().long().clamp(1, T)
    t = (t - rank).cummax(0).values + rank
    return torch.minimum(t, T - (K - 1) + rank)
