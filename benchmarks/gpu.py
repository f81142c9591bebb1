"""Speed on a GPU in one table: training, sampling, bound, features, DDP.

    python -m benchmarks.gpu --out outputs/gpu    # make gpu; at most 225 s
    python -m benchmarks.gpu --parts peak compiled graphs
    python -m benchmarks.gpu --device cpu --tiny  # all code, a small network

The network is ``unet_ddpm`` on 3x32x32 images, with random weights. The
variants of a part are interleaved. Times are medians over the rounds, and
ratios have [quartiles]; a ratio above 1 is faster than the first variant of the
part. A training step is forward, backward, fused AdamW and EMA, and with nelbo
the bound.

FLOPs are those of the network, counted by ``torch.utils.flop_counter``. The
bf16 peak is that of a product of two 8192x8192 matrices in the same run.

Writes ``gpu.md`` and ``gpu.json`` after each part. A part that fails or exceeds
its time prints one line, and the next one starts. Exit status: 0, 1 if a part
failed, 2 without a GPU; then nothing is written.
"""

import argparse
import gc
import importlib.util
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from types import FrameType

import torch
import torch.distributed
import torch.multiprocessing
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleave import Precision, interleave, set_up_clock
from benchmarks.live_bound import make_steps
from benchmarks.speed_table import SpeedTable
from benchmarks.training_step import TrainingStep, Variant, configure, endless_batches
from nelbo.compose.build import build_module
from nelbo.data.batch import Batch
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.spacings import Trailing
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import ImportanceEstimator
from nelbo.evaluation.generation import generate
from nelbo.evaluation.measure import measure
from nelbo.evaluation.sample_metrics.features.inception import Inception
from nelbo.training.module import DiffusionModule

STARTED = time.monotonic()
DDPM = ("objective=simple", "data=patches", "model=unet_ddpm")
TF32, BF16 = Precision(tf32=True), Precision(bf16=True)
FASTEST = Variant(bf16=True, channels_last=True)
VARIANTS = {
    "fp32": Variant(tf32=False),
    "TF32": Variant(),
    "bf16": Variant(bf16=True),
    "bf16 channels_last": FASTEST,
}


class SkippedError(Exception):
    """What a part needs is missing; not a failure."""


@dataclass(frozen=True)
class Size:
    """Amount of work.

    Attributes:
        options: of train.py, for the network and the data.
        batch: images in a training step.
        large_batch: images in a training step of the parts with a larger batch.
        repeats: steps in one timing.
        rounds: of interleaved timings, at most.
        samples: images that are drawn together.
        sampler_steps: steps of DDIM.
        images: images whose bound is measured.
        matrix: side of the matrices for the peak.
        processes: of the part with several devices; None: the number of GPUs.
        patience: factor of the time that each part may take.
    """

    options: tuple[str, ...] = DDPM
    batch: int = 128
    large_batch: int = 512
    repeats: int = 4
    rounds: int = 10
    samples: int = 256
    sampler_steps: int = 50
    images: int = 512
    matrix: int = 8192
    processes: int | None = None
    patience: float = 1.0


TINY = Size(
    options=(
        *DDPM,
        "data.size=8",
        "model.channels=32",
        "model.channel_mult=[1,1]",
        "model.attention_resolutions=[4]",
        "model.num_res_blocks=1",
    ),
    batch=2,
    large_batch=4,
    repeats=1,
    rounds=2,
    samples=2,
    sampler_steps=2,
    images=2,
    matrix=128,
    processes=2,
    patience=20.0,
)


class Bench:
    """Device, configuration and table, which the parts have in common.

    Args:
        device: of the measurements.
        size: amount of work.
        inception: file of the weights of the Inception network.
    """

    def __init__(self, device: torch.device, size: Size, inception: Path) -> None:
        self.device, self.size, self.inception = device, size, inception
        self.clock = set_up_clock(device, threads=1)
        self.config = configure(*size.options, f"data.batch_size={size.batch}")
        data = instantiate(self.config.data)
        self.spec = data.spec
        self.examples = next(endless_batches(data, device))
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        cudnn = "on" if torch.backends.cudnn.benchmark else "off"
        self.table = SpeedTable(name, {"PyTorch": torch.__version__, "cuDNN benchmark": cudnn})

    def batch(self, size: int) -> Batch:
        """A batch of ``size`` images; they repeat if there are fewer."""
        index = torch.arange(size, device=self.device)
        return Batch(self.examples.x0[index % len(self.examples.x0)], None, index)

    def module(self) -> DiffusionModule:
        """A model for measurements without training."""
        return build_module(self.config, self.spec).to(self.device).requires_grad_(False).eval()

    def flops(self, backward: bool) -> float:
        """Floating-point operations of the network for one image, with or without the backward pass."""
        network = build_module(self.config, self.spec).denoiser.network.to("meta")
        x, c = torch.empty(1, *self.spec.shape, device="meta"), torch.empty(1, device="meta")
        with FlopCounterMode(display=False) as counter:
            output = network(x, c, None)
            if backward:
                output.sum().backward()
        return counter.get_total_flops()

    def interleave(
        self, steps: Mapping[str, Callable[[], None]], seconds_limit: float, repeats: int = 1, warmup: int = 2
    ) -> dict[str, list[float]]:
        """Seconds of each timing of ``repeats`` steps."""

        def repeated(step: Callable[[], None]) -> None:
            for _ in range(repeats):
                step()

        timed = {name: partial(repeated, step) for name, step in steps.items()}
        return interleave(timed, self.clock, self.size.rounds, warmup, seconds_limit)

    def time_training(
        self, part: str, variants: Mapping[str, Variant], batch: int, seconds_limit: float
    ) -> dict[str, list[float]]:
        """Time training steps and add their rows."""
        steps = {
            name: TrainingStep(self.config, repeat(self.batch(batch)), self.device, variant)
            for name, variant in variants.items()
        }
        seconds = self.interleave(steps, seconds_limit, self.size.repeats)
        self.table.add(part, seconds, batch, batch * self.flops(backward=True), self.size.repeats)
        return seconds


def time_peak(bench: Bench, seconds_limit: float) -> None:
    """Products of large matrices."""
    n = bench.size.matrix
    a, b = torch.randn(2, n, n, device=bench.device)

    def multiply(precision: Precision, left: Tensor, right: Tensor) -> None:
        with precision(bench.device):
            torch.matmul(left, right)

    steps = {
        "bfloat16": partial(multiply, TF32, a.bfloat16(), b.bfloat16()),
        "TF32": partial(multiply, TF32, a, b),
        "fp32": partial(multiply, Precision(tf32=False), a, b),
    }
    seconds = bench.interleave(steps, seconds_limit, bench.size.repeats)
    bench.table.add(f"product of {n}x{n} matrices", seconds, None, 2 * n**3, bench.size.repeats)
    bench.table.peak = bench.table.rows[0].tflops


def time_training_step(bench: Bench, seconds_limit: float) -> None:
    """Precisions and memory formats."""
    bench.time_training("training step", VARIANTS, bench.size.batch, seconds_limit)


def time_large_batch(bench: Bench, seconds_limit: float) -> None:
    """A larger batch."""
    bench.time_training("training step", VARIANTS, bench.size.large_batch, seconds_limit)


def time_diffusers(bench: Bench, seconds_limit: float) -> None:
    """The same architecture in diffusers."""
    if importlib.util.find_spec("diffusers") is None:
        raise SkippedError("diffusers is not installed")
    from benchmarks.train_step import DiffusersStep, assert_same_size

    size, batch = bench.size, bench.batch(bench.size.batch)
    for name in ("TF32", "bf16 channels_last"):
        ours = TrainingStep(bench.config, repeat(batch), bench.device, VARIANTS[name])
        theirs = DiffusersStep(bench.config.model, batch.x0, VARIANTS[name])
        assert_same_size(ours.module.denoiser.network, theirs.model)
        steps = {f"diffusers {name}": theirs, f"nelbo {name}": ours}
        seconds = bench.interleave(steps, seconds_limit / 2, size.repeats)
        bench.table.add("training step", seconds, size.batch, size.batch * bench.flops(True), size.repeats)


def time_compiled(bench: Bench, seconds_limit: float) -> None:
    """``compile=true``."""
    time_compile_mode(bench, "default", "compiled", bench.size.batch, seconds_limit)


def time_graphs(bench: Bench, seconds_limit: float) -> None:
    """CUDA graphs."""
    time_compile_mode(bench, "reduce-overhead", "compiled, CUDA graphs", bench.size.batch, seconds_limit)


def time_compiled_large_batch(bench: Bench, seconds_limit: float) -> None:
    """``compile=true`` with a larger batch."""
    time_compile_mode(bench, "default", "compiled", bench.size.large_batch, seconds_limit)


def time_compile_mode(bench: Bench, mode: str, name: str, batch: int, seconds_limit: float) -> None:
    """A compiled training step compared with the fastest one that is not."""
    compiled = Variant(bf16=True, channels_last=True, compile=mode)
    variants = {"bf16 channels_last": FASTEST, f"bf16 channels_last {name}": compiled}
    bench.time_training("training step", variants, batch, seconds_limit)


def time_sampling(bench: Bench, seconds_limit: float) -> None:
    """DDIM, noise included."""
    module, size = bench.module(), bench.size
    sampler = DDIM(eta=0.0, steps=size.sampler_steps, data_range=bench.spec.range)
    chain = Trailing().chain(module.bound.chain.schedule, size.sampler_steps)
    index = torch.arange(size.samples)

    def draw(precision: Precision) -> None:
        with precision(bench.device):
            generate(sampler, module.denoiser, chain, bench.spec.shape, index, device=bench.device)

    precisions = {"fp32": Precision(tf32=False), "TF32": TF32, "bf16": BF16}
    steps = {name: partial(draw, precision) for name, precision in precisions.items()}
    seconds = bench.interleave(steps, seconds_limit, warmup=1)
    flops = size.samples * size.sampler_steps * bench.flops(backward=False)
    bench.table.add(f"DDIM, {size.sampler_steps} steps", seconds, size.samples, flops)


def time_bound(bench: Bench, seconds_limit: float) -> None:
    """A pilot and one round of the importance estimator."""
    module, n = bench.module(), bench.size.images
    batch, variants = bench.batch(n), [BoundVariant(module.bound)]
    evaluations = 0

    def evaluate(precision: Precision) -> None:
        nonlocal evaluations
        estimator = ImportanceEstimator(max_evaluations=1, pilot_evaluations=1)
        with precision(bench.device):
            [result] = measure(estimator, variants, module.denoiser, [batch], n, module.unit, bench.device)
        evaluations = result.estimate.num_evaluations

    steps = {"TF32": partial(evaluate, TF32), "bf16": partial(evaluate, BF16)}
    seconds = bench.interleave(steps, seconds_limit, warmup=1)
    flops = evaluations * bench.flops(backward=False)
    bench.table.add(f"bound, importance, {evaluations / n:.0f} evaluations per image", seconds, n, flops)


def time_live_bound(bench: Bench, seconds_limit: float) -> None:
    """The bound during training."""
    size = bench.size
    steps = make_steps(bench.config, bench.batch(size.batch), bench.device, FASTEST)
    names = {"with": "with the bound", "without": "without", "alone": "the bound alone"}
    steps = {names[name]: step for name, step in steps.items()}
    seconds = bench.interleave(steps, seconds_limit, size.repeats)
    bench.table.add("training step, bf16 channels_last", seconds, repeats=size.repeats)


def time_features(bench: Bench, seconds_limit: float) -> None:
    """Features for the FID."""
    if not bench.inception.is_file():
        raise SkippedError(f"no weights of Inception in {bench.inception}: give --inception FILE")
    features, x0 = Inception(str(bench.inception)), bench.batch(bench.size.samples).x0

    def extract(precision: Precision) -> None:
        with precision(bench.device):
            features(x0)

    steps = {"fp32": partial(extract, Precision(tf32=False)), "TF32": partial(extract, TF32)}
    seconds = bench.interleave(steps, seconds_limit)
    bench.table.add("features of Inception", seconds, bench.size.samples)


def time_processes(bench: Bench, seconds_limit: float) -> None:
    """Data-parallel training on all GPUs, compared with the same step without communication."""
    size, kind = bench.size, bench.device.type
    processes = size.processes or torch.cuda.device_count()
    if processes < 2:
        raise SkippedError("there is one GPU")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, kind, size, bench.inception, Path(folder), seconds_limit)
        context = torch.multiprocessing.spawn(time_rank, arguments, processes, join=False)
        assert context is not None
        try:
            while not context.join():
                pass
        finally:
            for process in context.processes:
                process.kill()
        seconds = json.loads((Path(folder) / "seconds.json").read_text())
    images = processes * size.batch
    flops = images * bench.flops(backward=True)
    bench.table.add(f"training step, {processes} processes", seconds, images, flops, size.repeats)


def time_rank(
    rank: int, processes: int, kind: str, size: Size, inception: Path, folder: Path, seconds_limit: float
) -> None:
    """One process of :func:`time_processes`."""
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=processes,
    )
    bench = Bench(device, size, inception)
    batches = repeat(bench.batch(size.batch))
    alone, together = (TrainingStep(bench.config, batches, device, FASTEST) for _ in range(2))
    denoiser = together.module.denoiser
    denoiser.network = DistributedDataParallel(denoiser.network, [rank] if kind == "cuda" else None)
    # all ranks make the same number of rounds
    steps = {"without communication": alone, "data parallel": together}
    seconds = bench.interleave(steps, float("inf"), size.repeats)
    if rank == 0:
        (folder / "seconds.json").write_text(json.dumps(seconds))
    torch.distributed.destroy_process_group()


PARTS: dict[str, tuple[Callable[[Bench, float], None], float]] = {  # function, seconds that it may take
    "peak": (time_peak, 15.0),
    "train": (time_training_step, 40.0),
    "large_batch": (time_large_batch, 40.0),
    "diffusers": (time_diffusers, 30.0),
    "sampling": (time_sampling, 45.0),
    "bound": (time_bound, 25.0),
    "live_bound": (time_live_bound, 20.0),
    "features": (time_features, 15.0),
    "processes": (time_processes, 60.0),
    "compiled": (time_compiled, 90.0),
    "graphs": (time_graphs, 90.0),
    "compiled_large_batch": (time_compiled_large_batch, 90.0),
}


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after ``seconds``."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def run_parts(bench: Bench, names: list[str], deadline: float, folder: Path) -> bool:
    """Run the parts and write the table after each one; whether none failed."""
    succeeded = True
    for name in names:
        time_part, budget = PARTS[name]
        seconds = min(budget * bench.size.patience, deadline - time.monotonic())
        begun = time.monotonic()
        try:
            if seconds < 1.0:
                raise TimeoutError("no time is left")
            with time_limit(seconds):
                time_part(bench, seconds / 2)
        except SkippedError as error:
            bench.table.not_measured[name] = str(error)
        except Exception as error:
            succeeded = False
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            bench.table.not_measured[name] = f"{type(error).__name__}: {reason}"
        outcome = bench.table.not_measured.get(name, f"{time.monotonic() - begun:.0f} s")
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)
        release(bench.device)
        bench.table.write(folder, "gpu")
    return succeeded


def release(device: torch.device) -> None:
    """Free the memory of a part, compiled code and CUDA graphs included."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), metavar="FOLDER")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network and little work")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--seconds", type=float, default=225.0, help="for the whole run (default 225)")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="as +trainer.benchmark=true")
    parser.add_argument(
        "--inception",
        type=Path,
        default=Path(torch.hub.get_dir()) / "checkpoints/weights-inception-2015-12-05-6726825d.pth",
        help="weights for the features",
    )
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: PyTorch finds no CUDA device; nothing was measured or written", file=sys.stderr)
        return 2
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("--device cpu needs --tiny")
    logging.disable()  # of a compilation that is stopped
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    bench = Bench(torch.device(arguments.device), TINY if arguments.tiny else Size(), arguments.inception)
    succeeded = run_parts(bench, arguments.parts, STARTED + arguments.seconds, arguments.out)
    print(bench.table.markdown(), end="")
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
