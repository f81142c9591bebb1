"""The processes of ``evaluate.py`` and ``sample.py``, one for each device."""

from datetime import timedelta

import torch
from omegaconf import DictConfig

from nelbo.cli.launch import launch_ranks, needs_launch
from nelbo.cli.rendezvous import check_process_count
from nelbo.compose.environment import cluster_plugins
from nelbo.connections import enable_keepalive
from nelbo.evaluation.processes import Processes

# One process measures what others wait for (spacing=optimal). If one dies, what started them ends the others:
# this command, torchrun, or srun --kill-on-bad-exit=1.
LONGEST_WAIT = timedelta(days=7)


def run_on_ranks(config: DictConfig) -> bool:
    """Start the ranks of a job that has several, and wait for them.

    Returns:
        Whether the job is done. If not, it has to be run in this process.

    Raises:
        ValueError: as :func:`check_devices`.
        ProcessError: with the message of the rank that failed first.
    """
    check_devices(config.device, config.devices)
    if not needs_launch(config.devices):
        return False
    launch_ranks(config.devices)
    return True


def check_devices(device: str, count: int) -> None:
    """Check the options ``device`` and ``devices`` of a command.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        count: number of processes, one for each device.

    Raises:
        ValueError: for a device that does not exist, or another number of processes than were started.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but there is no GPU: use device=cpu")
    if chosen_device(device) == "cuda" and count > torch.cuda.device_count():
        raise ValueError(f"devices={count}, but there are {torch.cuda.device_count()} GPUs")
    check_process_count(count)


def chosen_device(device: str) -> str:
    """``cpu`` or ``cuda``: where there is a GPU, ``auto`` is ``cuda``."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def start_processes(device: str, count: int) -> Processes:
    """Connect the processes of a command.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        count: number of processes, which are running.
    """
    device = chosen_device(device)
    if count == 1:
        return Processes(0, 1, torch.device(device))
    from lightning import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    strategy = DDPStrategy(timeout=LONGEST_WAIT)
    fabric = Fabric(accelerator=device, devices=count, strategy=strategy, plugins=cluster_plugins())
    fabric.launch()
    enable_keepalive()
    return Processes(fabric.global_rank, count, fabric.device, fabric)
