"""The processes that torchrun or srun started."""

import os
from typing import Any


def started_by() -> tuple[str, int]:
    """Who started this process, and how many there are."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun", int(os.environ["WORLD_SIZE"])
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        if SLURMEnvironment.detect():
            return "srun", int(os.environ["SLURM_NTASKS"])
    return "", 1


def process_count() -> int:
    """Number of processes that torchrun or srun started; 1 without them."""
    return started_by()[1]


def rank() -> int:
    """Number of this process among those that torchrun or srun started."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def cluster_plugins() -> list[Any]:
    """Plugin with the ranks of a job for Lightning; none if torchrun or srun started the processes.

    Without it Lightning would believe SLURM inside of a job of one task.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [LightningEnvironment()] if process_count() == 1 else []
