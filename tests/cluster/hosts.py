"""Two hosts: network namespaces with one link between them. It needs root, and iproute2."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.77.0.1", "10.77.0.2")
INTERFACE = "cable"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class TwoHosts:
    """Namespaces from entering to leaving the context, with the same file system."""

    def __init__(self) -> None:
        self.names = [f"nelbo{os.getpid()}-{number}" for number in range(2)]

    def __enter__(self) -> "TwoHosts":
        for name in self.names:
            ip("netns", "add", name)
        first, second = self.names
        ip("-n", first, "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", INTERFACE, "up")
            ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def slow_down(self, rate: str, latency: str) -> None:
        """Limit the link in both directions."""
        for name in self.names:
            shaped = ["tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf"]
            limits = ["rate", rate, "burst", "32kbit", "latency", latency]
            subprocess.run(["ip", "netns", "exec", name, *shaped, *limits], check=True)

    def cut(self) -> None:
        """Cut the link."""
        ip("-n", self.names[0], "link", "set", INTERFACE, "down")

    def torchrun(self, *options: str, interface: str | None = INTERFACE) -> list[subprocess.Popen]:
        """Start ``torchrun train.py OPTION...`` with one process on each host."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if interface is not None:
            environment["GLOO_SOCKET_IFNAME"] = interface
        return [
            subprocess.Popen(
                [
                    "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run",
                    "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}",
                    f"--master-addr={ADDRESSES[0]}", "--master-port=29500",
                    f"--local-addr={address}", "train.py", *options,
                ],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for number, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True))
        ]  # fmt: skip
