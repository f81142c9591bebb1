"""The average of the weights: its value and its use."""

import pytest
import torch
from lightning import Callback


class Record(Callback):
    """Records the weights after every step and in every validation."""

    def __init__(self) -> None:
        self.raw, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.raw.append(weights(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, *args) -> None:
        self.validated.append(weights(pl_module))


def weights(module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def stored(module, state) -> torch.Tensor:
    return torch.cat([state[name].flatten() for name, _ in module.named_parameters()])


def average(raw, decay) -> torch.Tensor:
    """The average by its definition: the first weights, then a decay with warm-up."""
    result = raw[0].double()
    for n, current in enumerate(raw[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        result = d * result + (1 - d) * current
    return result.float()


@pytest.fixture(params=[pytest.param(0.995, marks=pytest.mark.slow), 0.2])
def run(request, tiny_run):
    record = Record()
    run = tiny_run(f"callbacks.ema.decay={request.param}", "optimizer.lr=0.05", callbacks=[record])
    run.fit()
    run.record, run.decay = record, request.param
    return run


@pytest.mark.slow
def test_validation_uses_the_average_and_training_the_raw_weights(run):
    raw, validated = run.record.raw, run.record.validated
    assert len(raw) == 6
    torch.testing.assert_close(validated[0], average(raw[:3], run.decay), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(validated[-1], average(raw, run.decay), rtol=1e-5, atol=1e-6)
    assert (validated[-1] - raw[-1]).abs().max() > 1e-3


def test_after_training_the_module_has_the_average(run):
    torch.testing.assert_close(weights(run.module), average(run.record.raw, run.decay), rtol=1e-5, atol=1e-6)


def test_checkpoints_have_the_average_and_the_raw_weights(run):
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    averaged = stored(run.module, checkpoint["state_dict"])
    torch.testing.assert_close(averaged, average(run.record.raw, run.decay), rtol=1e-5, atol=1e-6)
    # raw weights, for the resume
    assert torch.equal(stored(run.module, checkpoint["current_model_state"]), run.record.raw[-1])


def test_without_it_everything_is_raw(tiny_run):
    record = Record()
    run = tiny_run("callbacks.ema=null", callbacks=[record])
    run.fit()
    assert torch.equal(record.validated[-1], record.raw[-1])
    assert torch.equal(weights(run.module), record.raw[-1])
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    assert "current_model_state" not in checkpoint
    assert torch.equal(stored(run.module, checkpoint["state_dict"]), record.raw[-1])
