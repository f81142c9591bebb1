"""The processes of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a command.

    Attributes:
        rank: 0 is the one that prints and writes.
        count: how many there are.
        device: of this one.
        fabric: Lightning's, where there are several.
    """

    rank: int
    count: int
    device: torch.device
    fabric: Any = None

    def add(self, sums: Tensor) -> None:
        """Add the sums (S,) of all processes, in place. Call it on all of them."""
        if self.fabric is not None:
            sums.copy_(self.fabric.all_reduce(sums, reduce_op="sum"))

    def share(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all of them: two that measure may differ in the last digits."""
        if self.fabric is None:
            return make()
        return self.fabric.broadcast(make() if self.rank == 0 else None)

    def wait(self) -> None:
        """Until all of them are here."""
        if self.fabric is not None:
            self.fabric.barrier()

    def end(self) -> None:
        """Leave together."""
        if self.fabric is not None:
            torch.distributed.destroy_process_group()
