"""The table at the end of a run."""

import math

from nelbo.evaluation.units import unit_of
from nelbo.reports.terminal import print_bound

VALUES = {"bpd": 2.0, "L_0": 1.5, "L_t": 0.45, "L_T": 0.05}


def test_every_part_with_its_error_and_its_share(tmp_path, capsys):
    metrics = {f"test/{name}": value for name, value in VALUES.items()}
    metrics |= {f"test/{name}_stderr": 0.0123 for name in VALUES}
    metrics["test/L_T_stderr"] = math.nan
    print_bound(metrics, ("test",), unit_of(64, 17), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("variational bound, bits/dim")

    def row(name):
        return next(line for line in lines if name in line)

    assert "1.500 ± 0.012" in row("L_0")
    assert "75.0%" in row("L_0")
    assert "0.450 " in row("L_t")
    assert "22.5%" in row("L_t")
    assert "0.05 ± ?" in row("L_T")
    assert "2.000 ± 0.012" in row("total")


def test_a_negligible_prior_leaves_the_table_within_80_columns(tmp_path, capsys):
    metrics = {f"{split}/{name}": value for split in ("val", "test") for name, value in VALUES.items()}
    metrics |= {f"{name}_stderr": 0.0123 for name in metrics}
    metrics |= {"val/L_T": 1.3e-9, "val/L_T_stderr": 6e-12, "test/L_T": 1.3e-9, "test/L_T_stderr": 6e-12}
    print_bound(metrics, ("val", "test"), unit_of(64, 17), tmp_path)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "1.3 × 10⁻⁹" in next(line for line in lines if "L_T" in line)
    assert max(map(len, lines[:-1])) <= 80


def test_only_files_that_are_there_are_named(tmp_path, capsys):
    metrics = {f"val/{name}{end}": 1.0 for name in VALUES for end in ("", "_stderr")}
    print_bound(metrics, ("val",), unit_of(64, 17), tmp_path)
    out = capsys.readouterr().out
    assert "samples" not in out
    assert "wandb leet" not in out
    (tmp_path / "samples").mkdir()
    for name in ("step_00000001.png", "step_00000002.png"):
        (tmp_path / "samples" / name).touch()
    (tmp_path / "wandb/offline-run-1").mkdir(parents=True)
    print_bound(metrics, ("val",), unit_of(64, 17), tmp_path)
    out = capsys.readouterr().out
    assert "step_00000002.png" in out
    assert f"wandb leet {tmp_path}/wandb/offline-run-1" in out
    (tmp_path / "wandb/run-$(touch x)").mkdir()
    print_bound(metrics, ("val",), unit_of(64, 17), tmp_path)
    assert f"wandb leet '{tmp_path}/wandb/run-$(touch x)'" in capsys.readouterr().out  # in a shell one word
