"""Without a terminal a training says every minute where it is; Ctrl-C does not wait for a validation."""

import os
import signal

import numpy as np
import pytest

from nelbo.runs import metrics_file
from nelbo.training.callbacks import progress
from nelbo.training.module import DiffusionModule


@pytest.mark.slow
def test_lines_have_the_bound_and_the_time_left_and_evaluations_their_part(tiny_run, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    run = tiny_run("trainer.log_every_n_steps=1")
    run.fit()
    run.trainer.test(run.module, datamodule=run.data, verbose=False)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("step       2")]
    assert "train/bpd " in line
    assert line.endswith(" left of 6 steps")
    assert sum(line == "validation: 100%" for line in lines) == 2
    assert "test: 100%" in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint_every", "saved"), [(3, ", saved in "), (2, "; step 2 is saved in "), (5, "; resume with: ")]
)
def test_an_interrupted_validation_ends_at_once_and_the_resumed_run_is_the_same(
    checkpoint_every, saved, command, tiny, tmp_path, monkeypatch
):
    options = (*tiny, "logger=none", "data.eval_batch_size=32", f"checkpoint_every={checkpoint_every}")
    assert command(*options, folder=tmp_path / "whole").code == 0
    measured = []
    validate = DiffusionModule.validation_step

    def interrupted(module, batch, batch_idx):
        measured.append(batch_idx)
        if len(measured) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        validate(module, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(DiffusionModule, "validation_step", interrupted)
        stopped = command(*options, folder=tmp_path / "run")
    assert stopped.code == 130
    assert measured == [0]
    assert f"stopped in the validation after step 3{saved}" in stopped.err
    resumed = command(f"resume={tmp_path / 'run'}", folder=tmp_path / "run")
    assert resumed.code == 0, resumed.err

    found, expected = (metrics_file.read(tmp_path / name / "metrics.csv") for name in ("run", "whole"))
    for name in ("train/loss", "val/bpd", "val/bpd_stderr", "test/bpd"):
        assert np.array_equal(found[name].steps, expected[name].steps)
        assert np.array_equal(found[name].values, expected[name].values)
