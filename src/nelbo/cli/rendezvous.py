"""One run folder for processes that torchrun or srun started.

The first process composes the configuration, which contains the time. Under torchrun it shares the folder
through the store of the agent. srun has no store, so hydra.run.dir is required.
"""

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from nelbo.cli.launch import is_launched
from nelbo.cli.overrides import WITHOUT_HYDRA_FILES, quoted
from nelbo.compose.environment import rank, started_by

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

KEY = "nelbo/run_dir"
INTERFACE = "GLOO_SOCKET_IFNAME"


def options_of_shared_run(arguments: Sequence[str]) -> list[str]:
    """Options with which this process joins the run of the first process.

    Args:
        arguments: the command line.

    Raises:
        ValueError: for several processes and a multirun, under srun for a folder that is not given, or for
            several machines that gloo would not connect.
    """
    agent, count = started_by()
    if count == 1 or is_launched():
        return []
    if {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments):
        raise ValueError(
            f"{agent} started {count} processes, which cannot share a multirun: leave {agent} out"
        )
    if agent == "srun" and not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise ValueError(
            f"srun started {count} processes: say where their run goes, hydra.run.dir=outputs/$SLURM_JOB_ID"
        )
    _check_network_interface(arguments)
    if rank() == 0:
        return []
    if agent == "srun":
        return [WITHOUT_HYDRA_FILES]
    return [f"hydra.run.dir={_store().get(KEY).decode()}", WITHOUT_HYDRA_FILES]


def check_process_count(devices: int, nodes: int = 1) -> None:
    """Check that the configuration expects as many processes as were started.

    Args:
        devices: of each machine.
        nodes: machines.

    Raises:
        ValueError: naming both counts.
    """
    agent, count = started_by()
    if count == 1 and nodes > 1:
        raise ValueError(f"{nodes} machines: start the command on each of them, by torchrun or srun")
    if count > 1 and count != devices * nodes:
        raise ValueError(
            f"{agent} started {count} processes, and the options are for {devices * nodes}: set the number "
            "of devices (train.py: trainer=ddp trainer.devices=... trainer.num_nodes=...; else devices=...)"
        )


def share_run_dir() -> None:
    """Share the folder of the first process with the others that torchrun started."""
    agent, count = started_by()
    if agent != "torchrun" or count == 1 or rank() != 0 or is_launched():
        return
    _store().set(KEY, quoted(HydraConfig.get().runtime.output_dir))


def _check_network_interface(arguments: Sequence[str]) -> None:
    """Check that gloo, which connects processes on CPUs, can reach the other machines.

    It uses the interface of the address of the host name, and the loopback interface if that is not known.
    Then every machine would wait for the others in silence.
    """
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", "1")))
    if nodes == 1 or INTERFACE in os.environ:
        return
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = ""
    if address and not address.startswith("127."):
        return
    if "trainer.accelerator=cpu" not in arguments and _has_gpu():
        return
    raise ValueError(
        f"{nodes} machines, and the name of this one, {name}, has {address or 'no address'}, which others do "
        f"not reach: set {INTERFACE} to the network interface between them (ip addr lists them)"
    )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _store() -> "Store":
    """The store of the agent, for this attempt."""
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
