"""Interleaved timing of several functions on a machine with other load.

Every round runs each function once, in random order, and gives one ratio per pair. The result is the median
over the rounds, with quartiles. A drift of the speed of the machine changes both sides of a ratio.
"""

import math
import random
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Clock = Callable[[], float]


@dataclass(frozen=True)
class Precision:
    """Arithmetic of a step on a GPU; the CPU has no TF32.

    Attributes:
        tf32: TF32 instead of float32 in matrix products and convolutions.
        bf16: bfloat16 autocast.
    """

    tf32: bool = True
    bf16: bool = False

    @contextmanager
    def __call__(self, device: torch.device) -> Iterator[None]:
        """Use it on ``device``; the setting of TF32 remains afterwards."""
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.tf32
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            yield


def add_timing_arguments(parser: ArgumentParser, rounds: int) -> None:
    """Define ``--device``, ``--threads`` and ``--rounds`` with this default."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default 1)")
    parser.add_argument("--rounds", type=int, default=rounds)


def set_up_clock(device: torch.device, threads: int) -> Clock:
    """A clock in seconds; the network runs on ``threads`` threads if ``device`` is the CPU.

    One thread is timed in processor time, on which other programs have little effect. Several threads are
    timed in wall time, because threads that wait for each other use processor time.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, for all functions

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised
    torch.set_num_threads(threads)
    return time.process_time if threads == 1 else time.perf_counter


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles over rounds."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def summarise(values: list[float]) -> Ratio:
    return Ratio(*statistics.quantiles(values, n=4))


def ratio(numerators: list[float], denominators: list[float]) -> Ratio:
    """Ratio of two interleaved timings."""
    return summarise([a / b for a, b in zip(numerators, denominators, strict=True)])


def interleave(
    steps: Mapping[str, Callable[[], object]],
    clock: Clock,
    rounds: int,
    warmup: int = 2,
    seconds_limit: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds of each step in each round, after ``warmup`` rounds.

    After ``seconds_limit`` no further round starts, but at least two are made.
    """
    deadline = time.monotonic() + seconds_limit
    order = list(steps)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warmup, rounds):
        if number >= 2 and time.monotonic() > deadline:
            break
        shuffle(order)
        for name in order:
            start = clock()
            steps[name]()
            elapsed = clock() - start
            if number >= 0:
                seconds[name].append(elapsed)
    return seconds
