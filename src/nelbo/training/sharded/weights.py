"""Sharding of weights among processes (FSDP2 of torch)."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the weights, unless they are already sharded.

    The unit of gathering is one entry of an ``nn.ModuleList``: a block of the network.

    Args:
        network: with equal weights on all processes.
        mesh: the processes.
    """
    if isinstance(network, FSDPModule):
        return
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):  # inner lists first
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def unshard(module: nn.Module) -> None:
    """Gather all weights until :func:`reshard`. Call it on all processes."""
    for part in _sharded_parts(module):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def reshard(module: nn.Module) -> None:
    """Free the gathered weights and keep the shard of this process."""
    for part in _sharded_parts(module):
        part.reshard()
        part.set_reshard_after_forward(True, recurse=False)


def _sharded_parts(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
