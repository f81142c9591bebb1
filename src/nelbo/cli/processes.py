"""Start the processes of ``evaluate.py`` and ``sample.py``."""

import torch
from hydra.core.hydra_config import HydraConfig

from nelbo.cli.launcher import launcher
from nelbo.cli.rendezvous import check_process_count
from nelbo.compose.environment import environment
from nelbo.evaluation.processes import Processes


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
    check_process_count(count)
    if count == 1:
        return Processes(0, 1, torch.device(device))
    from lightning import Fabric

    launcher.start(count, f"{HydraConfig.get().job.config_name}.py")
    fabric = Fabric(accelerator=device, devices=count, strategy="ddp", plugins=environment())
    fabric.launch()
    return Processes(fabric.global_rank, count, fabric.device, fabric)
