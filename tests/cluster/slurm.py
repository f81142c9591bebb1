"""A SLURM of one machine: munge, slurmctld and slurmd with files in one folder. It needs root."""

import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
JobRequeue=1
ReturnToService=2
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Slurm:
    """The daemons, from entering to leaving the context, and the commands that talk to them.

    Args:
        folder: for the files of the daemons.
        cpus: of the machine, as SLURM counts them.
    """

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder, self.cpus = folder, cpus
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        self.environment["SLURM_CONF"] = str(folder / "slurm.conf")
        self._stack = ExitStack()

    def __enter__(self) -> "Slurm":
        host = socket.gethostname().partition(".")[0]
        names = {"host": host, "folder": self.folder, "cpus": self.cpus}
        configuration = CONFIGURATION.format(controller=free_port(), daemon=free_port(), **names)
        (self.folder / "slurm.conf").write_text(configuration)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        of_munge = [f"--{name}={self.folder}/munge.{name.partition('-')[0]}" for name in (
            "socket", "pid-file", "log-file", "seed-file", "key-file")]  # fmt: skip
        with self._stack:
            self._start("munged", "--foreground", "--force", *of_munge)
            self._wait_for(lambda: (self.folder / "munge.socket").exists(), "munged", 20)
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", host)
            self._wait_for(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t"), "slurmd", 60)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.call("scancel", "--signal=KILL", "--user=root")
        self._stack.close()

    def _start(self, *command: str) -> None:
        log = self._stack.enter_context((self.folder / f"{command[0]}.out").open("w"))
        program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise FileNotFoundError(f"{command[0]}: apt-get install slurm-wlm munge")
        process = subprocess.Popen([program, *command[1:]], env=self.environment, stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def _wait_for(self, is_ready, what: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not is_ready():
            if time.monotonic() > until:
                logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
                raise TimeoutError(f"{what} does not answer after {seconds} s: {logs}")
            time.sleep(0.2)

    def call(self, *command: str) -> str:
        """What a command of SLURM prints."""
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return ended.stdout + ended.stderr

    def submit(self, script: str, *options: str) -> int:
        """Submit a script; return the number of its job."""
        ended = subprocess.run(
            ["sbatch", "--parsable", *options],
            input=f"#!/bin/bash\n{script}\n", env=self.environment, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        return int(ended.stdout)

    def states(self, job: int) -> dict[str, str]:
        """The state of a job, or of each task of an array, by its number."""
        shown = self.call("scontrol", "--oneliner", "show", "job", str(job))
        return dict(re.findall(r"JobId=(\d+).*?JobState=(\w+)", shown))

    def wait(self, job: int, seconds: float = 300.0) -> set[str]:
        """Wait until a job has ended; return the states of its tasks."""
        self._wait_for(lambda: set(self.states(job).values()) <= ENDED, f"job {job}", seconds)
        return set(self.states(job).values())
