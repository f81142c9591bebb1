"""Processes that others started find the folder of the first one."""

import os
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from torch.distributed import TCPStore

from nelbo.cli.rendezvous import options_of_shared_run, share_run_dir, started_by


@pytest.fixture
def process(monkeypatch):
    """Makes this process one that somebody started."""

    def be(arguments=(), **environment) -> None:
        for name in [
            n for n in os.environ if n.startswith("SLURM_") or n in ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE")
        ]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])

    return be


def test_single_process_adds_no_options(process):
    process()
    assert options_of_shared_run(sys.argv[1:]) == []


def test_torchrun_ranks_receive_folder_of_first_rank(process, command):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent = {
        "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": 0, "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port,
    }  # fmt: skip
    process(RANK=0, **agent)
    assert options_of_shared_run(sys.argv[1:]) == []
    found = []
    command(job=lambda config: found.append(HydraConfig.get().runtime.output_dir))
    quoted = found[0].replace("'", "\\'")
    process(RANK=1, **agent)
    assert options_of_shared_run(sys.argv[1:]) == [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]
    process(["-m", "seed=1,2"], RANK=1, **agent)
    with pytest.raises(ValueError, match="torchrun started 2 processes, which cannot share a multirun"):
        options_of_shared_run(sys.argv[1:])


def test_srun_requires_run_dir(process):
    task = {"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": 7}
    process(SLURM_PROCID=0, **task)
    assert started_by() == ("srun", 2)
    with pytest.raises(ValueError, match=r"hydra\.run\.dir=outputs/"):
        options_of_shared_run(sys.argv[1:])
    process(["hydra.run.dir=here"], SLURM_PROCID=0, **task)
    assert options_of_shared_run(sys.argv[1:]) == []
    process(["hydra.run.dir=here"], SLURM_PROCID=1, **task)
    assert options_of_shared_run(sys.argv[1:]) == ["hydra.output_subdir=null"]
    share_run_dir()  # there is nobody to tell


def test_several_machines_without_a_network_interface_are_refused(process, monkeypatch):
    agent = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 2, "RANK": 0}
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
    process(["trainer.accelerator=cpu"], **agent)
    with pytest.raises(ValueError, match=r"has 127\.0\.1\.1, which .* set GLOO_SOCKET_IFNAME"):
        options_of_shared_run(sys.argv[1:])
    process(["trainer.accelerator=cpu"], **agent, GLOO_SOCKET_IFNAME="eth0")
    assert options_of_shared_run(sys.argv[1:]) == []
    monkeypatch.setattr("socket.gethostbyname", lambda name: "10.0.0.1")
    process(["trainer.accelerator=cpu"], **agent)
    assert options_of_shared_run(sys.argv[1:]) == []
