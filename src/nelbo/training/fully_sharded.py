"""Weights, gradients, moments and averages shared out among the processes (ZeRO; torch's FSDP2).

A network in training takes 20 bytes a parameter on every device of ``trainer=ddp``: the weight, its gradient, Adam's
two moments and the average. Here each device keeps its part of them, and gathers the weights of one block at a
time for as long as it computes with them.
"""

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


class FullySharded(ModelParallelStrategy):
    """Every process computes with its rows of the batch, and keeps its part of the weights.

    Checkpoints are whole, in one file like those of any other run.

    Args:
        timeout: how long a process waits for another before it gives up.
    """

    def __init__(self, timeout: timedelta) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """Join the other processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def share_out(network: nn.Module, mesh: DeviceMesh) -> None:
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


def gather(module: nn.Module) -> None:
    """Bring all weights to every process, to stay there. On all processes."""
    for part in _shared_out(module):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(module: nn.Module) -> None:
    """Keep this process's part alone."""
    for part in _shared_out(module):
        part.reshard()
        part.set_reshard_after_forward(True, recurse=False)


def _shared_out(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
