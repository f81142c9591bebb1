"""The divergence of a vector field, the trace of its Jacobian, by vector-Jacobian products."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Divergence", "ExactDivergence", "HutchinsonDivergence"]


class Divergence(ABC):
    """Computes the divergence at a batch of points; independent estimates of it where it is random."""

    @abstractmethod
    def probes(self, draw: Callable[[], Tensor]) -> Tensor:
        """The random vectors of an integration, (P, B, ...); they stay the same along a trajectory.

        Args:
            draw: returns standard normal noise (B, ...).
        """

    @abstractmethod
    def trace(self, output: Tensor, x: Tensor, probes: Tensor) -> Tensor:
        """Estimates of the trace of d output / dx, (B, P); (B, 1) if it is exact.

        Args:
            output: (B, ...), computed from ``x``, with its graph.
            x: (B, ...) that requires gradients; example b of the output depends on example b alone.
            probes: (P, B, ...) of :meth:`probes`.
        """


class ExactDivergence(Divergence):
    """The sum of the D diagonal entries: D vector-Jacobian products, for data of few dimensions."""

    def __str__(self) -> str:
        return "exact divergence"

    def probes(self, draw: Callable[[], Tensor]) -> Tensor:
        """No random vectors, (0, B, ...)."""
        return draw().new_zeros(0)

    def trace(self, output: Tensor, x: Tensor, probes: Tensor) -> Tensor:
        """The trace, (B, 1)."""
        flat = output.flatten(1)
        total = flat.new_zeros(len(flat))
        for d in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, d].sum(), x, retain_graph=d + 1 < flat.shape[1])
            total += row.flatten(1)[:, d]
        return total[:, None]


class HutchinsonDivergence(Divergence):
    """e^T J e for random signs e, whose mean is the trace (Hutchinson 1989; FFJORD, Grathwohl et al. 2019).

    Args:
        num_probes: P, number of vectors. Two or more show the variance.

    Raises:
        ValueError: for less than one vector.
    """

    def __init__(self, num_probes: int = 2) -> None:
        if num_probes < 1:
            raise ValueError(f"divergence.num_probes={num_probes}: expected at least 1")
        self.num_probes = num_probes

    def __str__(self) -> str:
        probes = "1 Rademacher probe" if self.num_probes == 1 else f"{self.num_probes} Rademacher probes"
        return f"Hutchinson divergence, {probes}"

    def probes(self, draw: Callable[[], Tensor]) -> Tensor:
        """Random signs, (P, B, ...)."""
        noise = torch.stack([draw() for _ in range(self.num_probes)])
        return torch.where(noise < 0.0, -1.0, 1.0).to(noise)

    def trace(self, output: Tensor, x: Tensor, probes: Tensor) -> Tensor:
        """P estimates, (B, P)."""
        estimates: list[Tensor] = []
        for number, probe in enumerate(probes, start=1):
            (row,) = torch.autograd.grad((output * probe).sum(), x, retain_graph=number < len(probes))
            estimates.append((row * probe).flatten(1).sum(1))
        return torch.stack(estimates, dim=1)
