"""The processes of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nelbo.connections import close_process_group

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The ranks of a command, as seen from one of them.

    Attributes:
        rank: of this process; rank 0 prints and writes.
        count: number of ranks.
        device: of this rank.
        fabric: Lightning Fabric; None for a single process.
    """

    rank: int
    count: int
    device: torch.device
    fabric: Any = None

    def all_reduce_sum(self, sums: Tensor) -> None:
        """Replace ``sums`` (S,) by their total over all ranks, in place. Call it on all ranks."""
        if self.fabric is not None:
            sums.copy_(self.fabric.all_reduce(sums, reduce_op="sum"))

    def broadcast(self, make: Callable[[], T]) -> T:
        """The result of ``make`` on rank 0, on all ranks: computed on each it could differ by rounding."""
        if self.fabric is None:
            return make()
        return self.fabric.broadcast(make() if self.rank == 0 else None)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.fabric is not None:
            self.fabric.barrier()

    def close(self) -> None:
        """Destroy the process group."""
        close_process_group()
