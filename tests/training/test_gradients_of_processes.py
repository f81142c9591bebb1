"""The gradients of a step are those of the global batch, for any number of processes."""

import pytest
import torch
from lightning import Callback

TWO = ("trainer.devices=2", "trainer.strategy=ddp_fork")
SHARED = (
    "conditional=true", "cond_dropout=0.5", "timesteps=importance", "schedule.num_steps=4",
    "timesteps.history=1", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3",
    "trainer.val_check_interval=100", "callbacks.samples=null", "model.dropout=0.5",
)  # fmt: skip


class KeepGradients(Callback):
    """Writes the gradients before each optimizer step to a file, on rank 0."""

    def __init__(self, folder):
        self.folder = folder

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.is_global_zero:
            gradients = {name: weight.grad.clone() for name, weight in pl_module.named_parameters()}
            torch.save(gradients, self.folder / f"{trainer.global_step}.pt")


def gradients(tiny_run, folder, *options):
    folder.mkdir()
    tiny_run(*SHARED, *options, callbacks=[KeepGradients(folder)], folder=folder).fit()
    return [torch.load(folder / f"{step}.pt") for step in range(3)]


@pytest.mark.parametrize("loss", ["vlb", "uncertainty"])
def test_the_gradients_of_two_processes_are_those_of_one(loss, tiny_run, tmp_path):
    options = (f"loss={loss}", "variance=fixed_large") if loss == "uncertainty" else ()
    alone = gradients(tiny_run, tmp_path / "one", *options)
    shared = gradients(tiny_run, tmp_path / "two", *options, *TWO)
    for step, (one, two) in enumerate(zip(alone, shared, strict=True)):
        assert one.keys() == two.keys()
        for name in one:
            # rounding, of the batch's sum and of the steps before
            error = (one[name] - two[name]).norm()
            assert error <= 1e-5 * one[name].norm() + 1e-9, (step, name)
    assert all(gradient.norm() > 0 for gradient in alone[-1].values())
