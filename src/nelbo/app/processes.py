"""One process or several: who this one is, and how their sums are added up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from hydra.core.hydra_config import HydraConfig
from torch import Tensor

from nelbo.app.launcher import environment, launcher
from nelbo.app.meeting import refuse_other_processes

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
        """Replace sums by those of all processes together, in place. On all of them."""
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


def start_processes(device: str, count: int) -> Processes:
    """Begin as many processes as are wanted; each of them comes back from here.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        count: of processes, each with a device of its own.

    Raises:
        ValueError: for a device that is not there.
    """
    if count < 1:
        raise ValueError(f"devices={count} must be at least 1")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device}: expected auto, cpu or cuda")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but there is no GPU: use device=cpu")
    if device == "cuda" and count > torch.cuda.device_count():
        raise ValueError(f"devices={count}, but there are {torch.cuda.device_count()} GPUs")
    refuse_other_processes(count)
    if count == 1:
        return Processes(0, 1, torch.device(device))
    from lightning import Fabric

    launcher.start(count, f"{HydraConfig.get().job.config_name}.py")
    fabric = Fabric(accelerator=device, devices=count, strategy="ddp", plugins=environment())
    fabric.launch()
    return Processes(fabric.global_rank, count, fabric.device, fabric)
