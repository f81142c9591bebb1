"""Each of two processes holds half of the weights in training, and all of them in evaluations."""

import os

import pytest
import torch
from lightning import Callback


class Count(Callback):
    """Records the numbers of weights of this process, in training and in validation."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        kept = sum(weight.to_local().numel() for weight in pl_module.parameters())
        moments = sum(m["exp_avg"].to_local().numel() for m in trainer.optimizers[0].state.values())
        average = sum(part.to_local().numel() for part in trainer.callbacks[0]._average)
        torch.save((kept, moments, average), self.folder / f"train{trainer.global_rank}.pt")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        whole = sum(weight.numel() for weight in pl_module.parameters())
        assert not any(hasattr(weight, "to_local") for weight in pl_module.parameters())
        torch.save(whole, self.folder / f"validate{trainer.global_rank}.pt")


@pytest.mark.slow
def test_weights_moments_and_average_are_sharded(tmp_path, compose, tiny):
    torch.multiprocessing.start_processes(
        train, (tmp_path, compose(*tiny, "trainer=fsdp", "logger=none", "trainer.accelerator=cpu",
                                  "trainer.devices=2", run_dir=tmp_path)), nprocs=2, start_method="fork",
    )  # fmt: skip
    whole = torch.load(tmp_path / "validate0.pt")
    parts = [torch.load(tmp_path / f"train{rank}.pt") for rank in range(2)]
    for kind in range(3):
        assert sum(part[kind] for part in parts) == whole
        assert max(part[kind] for part in parts) < 0.6 * whole


def train(rank, folder, config):
    from hydra.utils import instantiate

    from nelbo.compose import build

    port = 20000 + os.getppid() % 20000  # the same for both, and of no other test
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.manual_seed(0)
    data = instantiate(config.data)
    module = build.build_module(config, data.spec)
    callbacks = [*build.build_callbacks(config, data.spec, module.bound.chain), Count(folder)]
    build.build_trainer(config, callbacks, build.build_loggers(config, folder)).fit(module, datamodule=data)
