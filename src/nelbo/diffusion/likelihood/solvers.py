"""ODE solvers: fixed-step methods, and the interface that adaptive ones share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RK4", "FixedStepSolver", "HeunSolver", "Solution", "Solver"]

VectorField = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """The end of B solutions.

    Attributes:
        y: (B, F) the states.
        evaluations: (B,) int64, evaluations of the vector field that each solution needed.
    """

    y: Tensor
    evaluations: Tensor


class Solver(ABC):
    """Solves dy/dt = f(t, y) for a batch of states."""

    @abstractmethod
    def solve(self, f: VectorField, y: Tensor, start: float, end: float) -> Solution:
        """The states at ``end``.

        Args:
            f: maps times (B,) float64 and states (B, F) to derivatives (B, F).
            y: (B, F) float64, the states at ``start``.
            start: first time.
            end: last time.

        Raises:
            ValueError: if the solver does not reach ``end``.
        """

    @abstractmethod
    def coarser(self) -> "Solver":
        """A less accurate solver of the same kind; the difference of both results estimates the error.

        Raises:
            ValueError: if there is none.
        """


class FixedStepSolver(Solver):
    """Equal steps.

    Args:
        steps: number of steps.

    Raises:
        ValueError: for less than one step.
    """

    stages: int  # evaluations per step

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"solver.steps={steps}: expected at least 1")
        self.steps = steps

    def __str__(self) -> str:
        return f"{type(self).__name__}, {'1 step' if self.steps == 1 else f'{self.steps} steps'}"

    @abstractmethod
    def step(self, f: VectorField, t: Tensor, y: Tensor, h: float) -> Tensor:
        """The states (B, F) after a step of size ``h`` from times ``t`` (B,) and states ``y`` (B, F)."""

    def solve(self, f: VectorField, y: Tensor, start: float, end: float) -> Solution:
        """See :meth:`Solver.solve`."""
        h = (end - start) / self.steps
        for n in range(self.steps):
            y = self.step(f, torch.full_like(y[:, 0], start + n * h), y, h)
        evaluations = torch.full((len(y),), self.steps * self.stages, device=y.device)
        return Solution(y, evaluations)

    def coarser(self) -> "FixedStepSolver":
        """The same method with half the steps.

        Raises:
            ValueError: for a single step.
        """
        if self.steps == 1:
            raise ValueError("solver.steps=1: use at least 2, so that half the steps show the error")
        return type(self)(self.steps // 2)


class HeunSolver(FixedStepSolver):
    """Heun's method (the explicit trapezoidal rule), of second order.

    Args:
        steps: number of steps, two evaluations each.
    """

    stages = 2

    def step(self, f: VectorField, t: Tensor, y: Tensor, h: float) -> Tensor:
        """The states (B, F) after a step of size ``h``."""
        k1 = f(t, y)
        k2 = f(t + h, y + h * k1)
        return y + 0.5 * h * (k1 + k2)


class RK4(FixedStepSolver):
    """The classical Runge-Kutta method, of fourth order.

    Args:
        steps: number of steps, four evaluations each.
    """

    stages = 4

    def step(self, f: VectorField, t: Tensor, y: Tensor, h: float) -> Tensor:
        """The states (B, F) after a step of size ``h``."""
        k1 = f(t, y)
        k2 = f(t + 0.5 * h, y + 0.5 * h * k1)
        k3 = f(t + 0.5 * h, y + 0.5 * h * k2)
        k4 = f(t + h, y + h * k3)
        return y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
