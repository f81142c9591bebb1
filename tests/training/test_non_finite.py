"""A loss that is NaN or infinite stops the training, and checkpoints are unchanged."""

import math

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import Checkpoint

from nelbo.training.callbacks import StopOnNonFinite
from nelbo.training.errors import NonFiniteLossError

BAD_STEP = 3


class Spoil(Checkpoint):
    """Puts a value into the weights just before a step, and after the step before was saved."""

    def __init__(self, value: float, step: int = BAD_STEP) -> None:
        self.value = value
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step - 1:
            next(pl_module.parameters()).data.fill_(self.value)


@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_training_stops_and_the_last_good_checkpoint_is_kept(value, tiny_run):
    run = tiny_run("checkpoint_every=1", "trainer.val_check_interval=100", callbacks=[Spoil(value)])
    with pytest.raises(NonFiniteLossError, match=f"at step {BAD_STEP}, in steps ") as raised:
        run.fit()
    assert "the last good checkpoint is kept" in str(raised.value)
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == BAD_STEP - 1
    for name in ("state_dict", "current_model_state"):
        assert all(tensor.isfinite().all() for tensor in checkpoint[name].values())
    assert not (run.folder / "checkpoints/best.ckpt").exists()


class SpoilGradient(Callback):
    """Makes a gradient NaN under a loss that is finite, in the step before one that is saved."""

    def on_after_backward(self, trainer, pl_module) -> None:
        if trainer.global_step == BAD_STEP - 1:
            next(pl_module.parameters()).grad.fill_(math.nan)


def test_weights_that_are_not_finite_are_not_saved(tiny_run):
    run = tiny_run("checkpoint_every=1", "trainer.val_check_interval=100", callbacks=[SpoilGradient()])
    with pytest.raises(NonFiniteLossError, match=f"weights are not finite at step {BAD_STEP} ") as raised:
        run.fit()
    assert "the last good checkpoint is kept" in str(raised.value)
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == BAD_STEP - 1
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_the_timesteps_of_the_batch_are_named(tiny_run):
    seen = []

    class Remember(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append(sorted(set(pl_module.draw(batch.x0)[0].index.tolist())))

    run = tiny_run("data.batch_size=8", callbacks=[Spoil(math.nan), Remember()])
    with pytest.raises(NonFiniteLossError) as raised:
        run.fit()
    assert f"in steps {', '.join(map(str, seen[-1]))} of the chain" in str(raised.value)


def test_the_command_reports_the_error_in_one_line(command, tiny):
    ended = command(*tiny, "logger=none", "optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    assert ended.code == 1
    assert ended.err.startswith("error: the loss is not finite at step ")
    assert ended.err.count("\n") == 1
    assert "optimizer.lr" in ended.err


class Device:
    type = "cuda"


class Reporter:
    """A stub Trainer and module on a GPU, which count the checks."""

    device = Device()
    global_step = 0
    looks = 0

    @property
    def strategy(self):
        return self

    def reduce_boolean_decision(self, decision, all):
        self.looks += 1
        return decision


def outputs(loss):
    return {"loss": torch.tensor(loss), "index": torch.tensor([7, 3, 7])}


def test_on_a_gpu_losses_are_checked_together_and_the_first_bad_step_is_named():
    callback, reporter = StopOnNonFinite(check_every=5), Reporter()
    for step, loss in enumerate([1.0, 2.0, math.nan, math.nan], start=1):
        reporter.global_step = step
        callback.on_train_batch_end(reporter, reporter, outputs(loss), None, step)
    assert reporter.looks == 0
    with pytest.raises(NonFiniteLossError, match="at step 3, in steps 3, 7 of the chain"):
        callback.on_save_checkpoint(reporter, reporter, {})
    assert reporter.looks == 1
    reporter.global_step = 5
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        callback.on_train_batch_end(reporter, reporter, outputs(1.0), None, 5)


def test_checked_losses_are_discarded():
    callback, reporter = StopOnNonFinite(check_every=2), Reporter()
    for step in range(1, 9):
        callback.on_train_batch_end(reporter, reporter, outputs(1.0), None, step)
    assert reporter.looks == 4


def test_another_process_stops_this_one():
    callback, reporter = StopOnNonFinite(check_every=1), Reporter()
    reporter.reduce_boolean_decision = lambda decision, all: False
    with pytest.raises(NonFiniteLossError, match="the loss of another process is not finite"):
        callback.on_train_batch_end(reporter, reporter, outputs(1.0), None, 1)
