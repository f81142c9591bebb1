"""Weights that are shared out among processes, and gathered for as long as they are needed."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Leave to this process its part of the weights. A second time nothing happens.

    What is gathered at a time is one entry of a module list: a block of the network.

    Args:
        network: whose weights are the same on all processes.
        mesh: the processes.
    """
    if isinstance(network, FSDPModule):
        return
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):  # those inside others first
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def unshard(module: nn.Module) -> None:
    """Bring all weights to every process, to stay there. On all processes."""
    for part in _shared_out(module):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def reshard(module: nn.Module) -> None:
    """Keep this process's part alone."""
    for part in _shared_out(module):
        part.reshard()
        part.set_reshard_after_forward(True, recurse=False)


def _shared_out(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
