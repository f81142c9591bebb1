"""The adaptive schedule in a run: when it changes, its state in checkpoints, and several processes."""

import pytest
import torch

from nelbo import torch_file
from nelbo.diffusion.schedules import AdaptiveSchedule

ADAPTIVE = (
    "schedule=adaptive", "schedule.bins=8", "schedule.decay=0.5", "c_noise=logsnr", "variance=fixed_large",
    "loss=vlb", "timesteps=stratified", "trainer.max_steps=6", "trainer.val_check_interval=2",
    "callbacks.samples=null", "checkpoint_every=4",
)  # fmt: skip
TWO = ("trainer.devices=2", "trainer.strategy=ddp_fork")


def curve(state):
    return state["schedule.positions"]


@pytest.fixture(scope="module")
def line():
    return torch.linspace(0.0, 1.0, 9, dtype=torch.float64)


def fitted(tiny_run, folder, *options, **arguments):
    run = tiny_run(*ADAPTIVE, *options, folder=folder)
    folder.mkdir(exist_ok=True)
    run.trainer.fit(run.module, datamodule=run.data, **arguments)
    return run


def test_the_curve_changes_after_a_validation_and_is_in_the_averaged_model(tiny_run, tmp_path, line):
    run = fitted(tiny_run, tmp_path / "run")
    before_validation = torch_file.load(run.folder / "checkpoints/previous.ckpt")
    assert before_validation["global_step"] == 4
    last = torch_file.load(run.folder / "checkpoints/last.ckpt")
    assert torch.equal(curve(last["state_dict"]), curve(last["current_model_state"]))
    assert (curve(last["state_dict"]) - line).abs().max() > 0.02
    assert torch.equal(curve(run.module.state_dict()), curve(last["state_dict"]))


def test_the_curve_stays_without_a_validation(tiny_run, tmp_path, line):
    run = fitted(tiny_run, tmp_path / "run", "trainer.val_check_interval=6")
    assert torch.equal(curve(run.module.state_dict()), line)
    assert run.module.schedule.count.sum() > 0


def test_the_curve_changes_once_for_a_validation_with_accumulated_gradients(tiny_run, tmp_path, monkeypatch):
    reshaped = []
    reshape = AdaptiveSchedule.reshape
    monkeypatch.setattr(AdaptiveSchedule, "reshape", lambda self: (reshaped.append(1), reshape(self)))
    options = ("trainer.accumulate_grad_batches=3", "trainer.val_check_interval=6")
    run = fitted(tiny_run, tmp_path / "run", *options)
    assert run.trainer.global_step == 6
    assert len(reshaped) == 2  # after the validations at steps 2 and 4; the last one ends the run


def test_a_resumed_run_has_the_same_curve_and_weights(tiny_run, tmp_path):
    whole = fitted(tiny_run, tmp_path / "whole")
    resumed = fitted(
        tiny_run,
        tmp_path / "resumed",
        ckpt_path=whole.folder / "checkpoints/previous.ckpt",
        weights_only=True,
    )
    expected, found = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one(tiny_run, tmp_path):
    runs = fitted(tiny_run, tmp_path / "one"), fitted(tiny_run, tmp_path / "two", *TWO)
    one, two = (torch_file.load(run.folder / "checkpoints/last.ckpt")["state_dict"] for run in runs)
    torch.testing.assert_close(curve(two), curve(one), rtol=0, atol=1e-5)


def test_evaluation_reads_the_curve(tiny_run, tmp_path):
    from nelbo import load

    run = fitted(tiny_run, tmp_path / "run")
    model = load(run.folder / "checkpoints/last.ckpt")
    assert torch.equal(model.trained.module.schedule.positions, run.module.schedule.positions)
