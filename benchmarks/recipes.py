"""Recipes with the same network, data and steps, several seeds, paired.

    python -m benchmarks.recipes --seeds 5 --jobs 2

Every run is one ``python train.py``. Its folder is kept, and a finished run is
not repeated. All runs share the test images. A difference is the mean over
seeds of the differences to the first recipe with the same seed. It has two
standard errors: over seeds, and over the test images (of the differences
averaged over seeds). Samples are drawn with each recipe's sampler at about 50
network evaluations, and compared with the training split (``fd_pixels``).
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.seeds import SeedEstimate
from nelbo.runs.files import RunFolderError
from nelbo.runs.run_folder import read_run
from nelbo.runs.summary import is_finished

ROOT = Path(__file__).parents[1]
CONTINUOUS = ("schedule.num_steps=null", "variance=fixed_large")
VDM = (
    *CONTINUOUS,
    "parameterization=eps",
    "c_noise=logsnr",
    "decoder=softmax",
    "timesteps=stratified",
    "loss=vlb",
)
EDM = ("experiment=edm_digits", "sampler.steps=25")  # Heun: two evaluations per step
RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "DDPM simple": ("objective=simple", "schedule=linear", "parameterization=eps"),
    "improved-diffusion hybrid": ("objective=hybrid", "parameterization=eps"),
    "improved-diffusion vlb": ("objective=vlb", "parameterization=eps"),
    "min-SNR": ("objective=min_snr",),
    "VDM, fixed": ("schedule=linear_logsnr", *VDM),
    "VDM, learned ends": ("schedule=learned_ends", *VDM),
    "VDM, learned net": ("schedule=learned_net", *VDM),
    "EDM": EDM,
    "EDM2 uncertainty": (*EDM, "loss=uncertainty"),
    "flow": ("experiment=flow_digits", "sampler.steps=25"),
    "categorical": (
        *CONTINUOUS,
        "parameterization=categorical",
        "schedule=linear_logsnr",
        "schedule.logsnr_max=8",  # the noise relative to the levels is that of 13.3 for 256 levels
        "schedule.logsnr_min=-9",
        "decoder=softmax",
    ),
}


def train(recipe: str, seed: int, folder: Path, threads: int, common: list[str]) -> Path:
    """Train one recipe with one seed, unless its folder holds the finished run; return the folder.

    Raises:
        RuntimeError: if the run fails; its output is in ``output.txt`` of the folder.
    """
    run = folder / recipe.replace(", ", "_").replace(" ", "_") / str(seed)
    if is_finished(run):
        return run
    run.parent.mkdir(parents=True, exist_ok=True)
    options = [
        *RECIPES[recipe],
        f"seed={seed}",
        "callbacks=sample_quality",
        "callbacks.sample_quality.every=1000000",  # the last validation always measures
        "logger=csv",
        *common,
        f"hydra.run.dir={run}",
    ]
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    log = run.parent / f"{seed}.txt"
    with log.open("w") as output:
        code = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *options],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(threads)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code:
        raise RuntimeError(f"{recipe}, seed {seed}: train.py ended with exit code {code}, see {log}")
    return run


@dataclass(frozen=True)
class Result:
    """What one run has measured.

    Attributes:
        bits_per_dim: of each test image, (N,).
        fd_pixels: of the samples.
        seconds: of training.
    """

    bits_per_dim: Tensor
    fd_pixels: float
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """Read the folder of a finished run."""
        run = read_run(folder)
        if run.examples is None:
            raise RunFolderError(f"{folder} has no bound of each example")
        summary = run.summary
        total = run.examples.part("total") * run.unit.per_nat
        return cls(total, float(summary["val/fd_pixels"]), float(summary["train_seconds"]))


def over_seeds(values: Sequence[float]) -> SeedEstimate:
    return SeedEstimate.of([Estimate(value, math.nan) for value in values])


def table(found: Mapping[str, Sequence[Result]]) -> str:
    """A Markdown table: means over seeds and differences to the first recipe, with standard errors."""
    first = next(iter(found))
    baseline = found[first]
    lines = [
        f"| recipe | bits/dim | minus {first} (± seeds, ± images) | fd_pixels | minus {first} | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for recipe, runs in found.items():
        pairs = list(zip(runs, baseline, strict=True))
        bpd = over_seeds([run.bits_per_dim.mean().item() for run in runs])
        fd = over_seeds([run.fd_pixels for run in runs])
        by_image = torch.stack([run.bits_per_dim - other.bits_per_dim for run, other in pairs])
        bpd_difference = over_seeds(by_image.mean(1).tolist())
        images = Estimate.of(by_image.mean(0))
        fd_difference = over_seeds([run.fd_pixels - other.fd_pixels for run, other in pairs])
        cells = [
            recipe,
            f"{bpd.mean:.3f} ± {bpd.seed_stderr:.3f}",
            f"{images.mean:+.3f} ± {bpd_difference.seed_stderr:.3f} ± {images.stderr:.3f}",
            f"{fd.mean:.2f} ± {fd.seed_stderr:.2f}",
            f"{fd_difference.mean:+.2f} ± {fd_difference.seed_stderr:.2f}",
            f"{fmean(run.seconds for run in runs):.0f}",
        ]
        if recipe == first:
            cells[2] = cells[4] = ""
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--folder", type=Path, default=Path("outputs/recipes"))
    parser.add_argument(
        "options", nargs="*", help="options of train.py for all runs, such as trainer.max_steps=500"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: an error over seeds needs at least 2")
    runs = [(recipe, seed) for seed in range(arguments.seeds) for recipe in arguments.recipes]
    folder = arguments.folder.resolve()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pending = [
            pool.submit(train, recipe, seed, folder, arguments.threads, arguments.options)
            for recipe, seed in runs
        ]
        found: dict[str, list[Result]] = {recipe: [] for recipe in arguments.recipes}
        for (recipe, _), run in zip(runs, pending, strict=True):
            found[recipe].append(Result.read(run.result()))
    print(table(found))


if __name__ == "__main__":
    main()
