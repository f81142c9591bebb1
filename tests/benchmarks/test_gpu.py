"""The benchmark of a GPU: its table, its exit status, and all of its code on the CPU."""

import json
import logging
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.interleave import interleave
from benchmarks.speed_table import SpeedTable


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs ``python -m benchmarks.gpu`` in this process: exit code, lines of stderr, folder."""

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out"), *arguments])
        monkeypatch.setattr(gpu, "STARTED", time.monotonic())
        capsys.readouterr()
        code = gpu.main()
        return code, capsys.readouterr().err.splitlines(), tmp_path / "out"

    yield run
    logging.disable(logging.NOTSET)


def test_the_table_has_rates_shares_and_ratios():
    table = SpeedTable("a card", {"PyTorch": "2"})
    table.add("product", {"bfloat16": [0.5, 0.5]}, flops=50e12)
    table.peak = table.rows[0].tflops
    seconds = {"fp32": [4.0, 4.0, 8.0], "bf16": [2.0, 2.0, 4.0]}
    table.add("step", seconds, images=128, flops=10e12, repeats=2)
    table.not_measured["features"] = "no weights"
    assert table.markdown().splitlines()[0] == "a card, PyTorch 2"
    assert table.markdown().splitlines()[4:] == [
        "| product | bfloat16 |  | 500.00 |  | 100 | 100.0% | 1 |",
        "| step | fp32 | 128 | 2000.00 | 64 | 5 | 5.0% | 1 |",
        "| step | bf16 | 128 | 1000.00 | 128 | 10 | 10.0% | 2.000 [2.000, 2.000] |",
        "",
        "- not measured: features: no weights",
    ]


def test_no_round_starts_after_the_time_limit():
    seconds = interleave({"a": lambda: None}, time.perf_counter, rounds=50, warmup=0, seconds_limit=0.0)
    assert len(seconds["a"]) == 2


@pytest.mark.slow
def test_diffusers_network_is_the_same_one():
    train_step = pytest.importorskip("benchmarks.train_step", reason="needs diffusers")
    bench = gpu.Bench(torch.device("cpu"), gpu.TINY, Path("unused"))
    theirs = train_step.make_theirs(bench.config.model, bench.spec.shape[-1])
    train_step.assert_same_size(bench.module().denoiser.network, theirs)
    x, t = torch.empty(1, *bench.spec.shape, device="meta"), torch.zeros(1, device="meta")
    with FlopCounterMode(display=False) as counter:
        theirs.to("meta")(x, t)
    assert bench.flops(backward=False) == counter.get_total_flops()
    assert 2.8 < bench.flops(backward=True) / bench.flops(backward=False) < 3.0


def test_without_a_gpu_nothing_is_written(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, lines, folder = run()
    assert (code, len(lines)) == (2, 1)
    assert "no GPU" in lines[0]
    assert not folder.exists()


def test_a_part_that_fails_prints_one_line_and_the_next_one_runs(run, monkeypatch):
    def fail(bench, seconds_limit):
        raise RuntimeError("out of memory\nand much else")

    def wait(bench, seconds_limit):
        time.sleep(60.0)

    monkeypatch.setitem(gpu.PARTS, "train", (fail, 1.0))
    monkeypatch.setitem(gpu.PARTS, "bound", (wait, 0.06))
    code, lines, folder = run("--device", "cpu", "--tiny", "--parts", "train", "bound", "features", "peak")
    assert code == 1
    assert lines[:2] == ["train: RuntimeError: out of memory", "bound: TimeoutError: stopped after 1 s"]
    assert lines[2].startswith("features: no weights of Inception in ")
    result = json.loads((folder / "gpu.json").read_text())
    assert set(result["not_measured"]) == {"train", "bound", "features"}
    assert [row["variant"] for row in result["rows"]] == ["bfloat16", "TF32", "fp32"]
    assert "not measured: train: RuntimeError: out of memory" in (folder / "gpu.md").read_text()


@pytest.mark.slow
def test_every_part_without_a_compiler_runs_on_the_cpu(run):
    """Compilation takes over ten minutes on two busy cores; tests/gpu compiles on a GPU."""
    parts = [name for name in gpu.PARTS if not name.startswith(("compiled", "graphs"))]
    code, lines, folder = run("--device", "cpu", "--tiny", "--seconds", "600", "--parts", *parts)
    assert code == 0, lines
    result = json.loads((folder / "gpu.json").read_text())
    assert set(result["not_measured"]) <= {"features", "diffusers"}
    assert {row["part"] for row in result["rows"]} >= {"training step", "DDIM, 2 steps"}
    assert all(row["milliseconds"] > 0.0 for row in result["rows"])
