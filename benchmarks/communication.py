"""Communication of data parallel training: a model, not a measurement.

    python -m benchmarks.communication
    python -m benchmarks.communication --step-ms 250 --processes 8 64 512

A ring all-reduce of P gradients of 4 bytes sends 2 (n-1)/n 4P bytes from each
of n processes. Its time is that of the slowest link of the ring. It overlaps
with the backward pass, two thirds of a step: gradients are sent in buckets of
25 MiB (the default of torch) while earlier layers are computed. The last bucket
does not overlap.

Not included: latencies, shared links, algorithms other than the ring, slower
processes.
"""

import argparse
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from nelbo.compose.config import CONFIG_DIR

BYTES = 4  # of a gradient; parameters stay float32 under bf16-mixed
BUCKET_BYTES = 25 * 2**20
BACKWARD = 2 / 3  # of a step's computation: gradients of weights and of activations, and one forward pass
GB_PER_SECOND = {
    "NVLink, 300 GB/s": 300.0,
    "PCIe 4, 25 GB/s": 25.0,
    "100 Gb/s ethernet": 12.5,
    "25 Gb/s ethernet": 3.125,
}
NETWORKS = {  # model, shape, channels of the output
    "unet_tiny": ((1, 8, 8), 1),
    "unet_ddpm": ((3, 32, 32), 3),
    "unet_iddpm": ((3, 32, 32), 6),
}


@dataclass(frozen=True)
class Communication:
    """Communication of one step.

    Attributes:
        bytes_sent: bytes sent by each process.
        seconds: duration of the communication.
        exposed: seconds that do not overlap with computation.
    """

    bytes_sent: float
    seconds: float
    exposed: float

    def share(self, step_seconds: float) -> float:
        """Fraction of the time of a step that is spent waiting."""
        return self.exposed / (step_seconds + self.exposed)


def all_reduce(
    num_parameters: int, processes: int, gb_per_second: float, step_seconds: float
) -> Communication:
    """The all-reduce of a step.

    Args:
        num_parameters: number of parameters of the network.
        processes: number of processes.
        gb_per_second: speed of the slowest link of the ring, 10^9 bytes per second.
        step_seconds: computation time of a step on one process.
    """
    gradients = BYTES * num_parameters
    sent = 2 * (processes - 1) / processes * gradients
    seconds = sent / (gb_per_second * 1e9)
    last_bucket = min(BUCKET_BYTES / gradients, 1.0) * seconds
    exposed = max(seconds - BACKWARD * step_seconds, last_bucket)
    return Communication(sent, seconds, exposed)


def sharded_bytes(num_parameters: int, processes: int) -> float:
    """Bytes sent by each process of ``trainer=fsdp`` per step (two all-gathers, one reduce-scatter)."""
    return 3 * (processes - 1) / processes * BYTES * num_parameters


def num_parameters(model: str) -> int:
    """Number of parameters of a network of ``conf/model``."""
    shape, out_channels = NETWORKS[model]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", overrides=[f"model={model}"])
    with torch.device("meta"):
        network = instantiate(config.model, shape=shape, out_channels=out_channels, num_classes=None)
    return sum(parameter.numel() for parameter in network.parameters())


def table(processes: list[int], step_seconds: float) -> list[str]:
    """Rows of a Markdown table."""
    rows = [
        "| network | parameters | n | link | sent, MB | all-reduce, ms | waited for, ms | of the step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in NETWORKS:
        P = num_parameters(model)
        for n in processes:
            for link, speed in GB_PER_SECOND.items():
                c = all_reduce(P, n, speed, step_seconds)
                times = f"{1e3 * c.seconds:.2f} | {1e3 * c.exposed:.2f} | {c.share(step_seconds):.1%}"
                rows.append(f"| `{model}` | {P:,} | {n} | {link} | {c.bytes_sent / 1e6:.1f} | {times} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step-ms", type=float, default=100.0, help="computation of a step on one process")
    parser.add_argument("--processes", type=int, nargs="+", default=[8, 64])
    options = parser.parse_args()
    print(f"a model, not a measurement; a step computes for {options.step_ms:g} ms\n")
    print("\n".join(table(options.processes, options.step_ms / 1e3)))


if __name__ == "__main__":
    main()
