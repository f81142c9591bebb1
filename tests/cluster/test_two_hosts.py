"""One run on two hosts by torchrun: the same result, and one line if the link or a variable is missing."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.cluster.hosts import ROOT, TwoHosts

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and network namespaces"
    ),
]
DROPOUT = ("model.dropout=0.1",)
DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.num_nodes=2", "trainer.devices=1")


@pytest.fixture
def hosts():
    with TwoHosts() as two:
        yield two


@pytest.fixture
def options(tiny, tmp_path):
    return (*tiny, *DROPOUT, "logger=none", *DDP, f"hydra.run.dir={tmp_path}/two")


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """The summary of the same run in one process."""
    folder = tmp_path_factory.mktemp("alone") / "one"
    command = [sys.executable, "train.py", *tiny, *DROPOUT, "logger=none", f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((folder / "summary.json").read_text())


def finish(processes, seconds: float) -> list[str]:
    """What they print, once they have ended."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error:")]


@pytest.mark.parametrize("link", ["whole", "slow"])
def test_two_hosts_equal_one_process(link, hosts, options, alone, tmp_path):
    if link == "slow":
        hosts.slow_down(rate="2mbit", latency="400ms")
    processes = hosts.torchrun(*options)
    outputs = finish(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], outputs
    together = json.loads((tmp_path / "two/summary.json").read_text())
    for name in ("train/loss", "val/bpd", "test/bpd"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5)
    assert sum(output.count("variational bound") for output in outputs) == 1


def test_a_missing_interface_is_named_on_both_hosts(hosts, options):
    processes = hosts.torchrun(*options, interface=None)
    for process, output in zip(processes, finish(processes, 180), strict=True):
        assert process.returncode != 0
        [line] = errors(output)
        assert "set GLOO_SOCKET_IFNAME to the network interface" in line


def test_a_link_that_is_cut_ends_both_hosts(hosts, options, tmp_path):
    processes = hosts.torchrun(*options, "trainer.max_steps=1000000", "trainer.val_check_interval=1000000")
    until = time.monotonic() + 120
    while not (tmp_path / "two/checkpoints/last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.2)
    hosts.cut()
    for process, output in zip(processes, finish(processes, 60), strict=True):
        assert process.returncode == 1
        [line] = errors(output)
        assert "lost the connection to another process" in line
