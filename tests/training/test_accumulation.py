"""Each optimizer step has the mean gradient over ``accumulate_grad_batches`` batches, also across epochs."""

from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

BATCHES = 4  # in an epoch: 1,437 examples by 350


class Gradients(Callback):
    def __init__(self) -> None:
        self.of_steps: list[torch.Tensor] = []
        self.batches: list[int] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.of_steps.append(torch.cat([p.grad.flatten().double() for p in pl_module.parameters()]))
        self.batches.append(trainer.fit_loop.total_batch_idx + 1)


def train(tiny_run, folder, accumulate: int, steps: int) -> Gradients:
    """Train with a learning rate of nearly 0, so that all gradients are at the same weights."""
    gradients = Gradients()
    run = tiny_run(
        "data.batch_size=350",
        "optimizer.lr=1e-30",
        "trainer.gradient_clip_val=null",
        f"trainer.accumulate_grad_batches={accumulate}",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=1000",
        *(f"callbacks.{name}=null" for name in ("samples", "best_checkpoint", "progress")),
        callbacks=[gradients],
        folder=folder,
    )
    run.fit()
    return gradients


# not a divisor of an epoch, and more than one
@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [3, 6])
def test_windows_continue_in_the_next_epoch(accumulate, tiny_run, tmp_path):
    singly = train(tiny_run, tmp_path / "singly", 1, 3 * BATCHES)
    together = train(tiny_run, tmp_path / "together", accumulate, 3 * BATCHES // accumulate)
    assert together.batches == [*range(accumulate, 3 * BATCHES + 1, accumulate)]
    by_hand = torch.stack(singly.of_steps).unflatten(0, (-1, accumulate)).mean(1)
    torch.testing.assert_close(torch.stack(together.of_steps), by_hand, rtol=1e-4, atol=1e-7)


def test_the_learning_rate_is_logged_where_a_step_ends(tiny_run, stub_trainer, monkeypatch):
    """A run that is resumed at step 3 accumulates a batch before its first learning rate."""
    module, logged = tiny_run().module, []
    stub_trainer(module)
    module.trainer.global_step = module.trainer.log_every_n_steps = 3
    monkeypatch.setattr(module, "log", lambda *args: logged.append(args))
    monkeypatch.setattr(module, "_log_step", lambda: None)
    module.on_train_batch_end(None, None, 0)
    assert logged == []
    module.on_before_optimizer_step(SimpleNamespace(param_groups=[{"lr": 0.5}]))
    module.on_train_batch_end(None, None, 1)
    assert logged == [("train/lr", 0.5)]
