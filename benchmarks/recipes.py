"""Recipes with the same network, data and steps or seconds, several seeds, paired.

    python -m benchmarks.recipes --seeds 5 --jobs 2
    python -m benchmarks.recipes --seeds 3 --no-fd data=mnist \\
        +trainer.max_time="'00:00:02:00'" lr_schedule=constant

Every run is one ``python train.py``. Its folder is kept, and a finished run is
not repeated. All runs share the test images. A difference is the mean over
seeds of the differences to the first recipe with the same seed. It has two
standard errors: over seeds, and over the test images (of the differences
averaged over seeds). Samples are drawn with each recipe's sampler at about 50
network evaluations, and compared with the training split (``fd_pixels``),
unless ``--no-fd`` leaves them out.
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
from nelbo.runs.run_options import read_overrides
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
CATEGORICAL = (
    *CONTINUOUS,
    "parameterization=categorical",
    "schedule=linear_logsnr",
    "schedule.logsnr_min=-9",
    "decoder=softmax",
)
EDM = ("experiment=edm_digits", "sampler.steps=25")  # Heun: two evaluations per step
# the last validation always measures
SAMPLES = ("callbacks=sample_quality", "callbacks.sample_quality.every=1000000")
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
    # the noise at the start is 0.16 steps between the levels of a pixel, for 17 and for 256 levels
    "categorical, 17 levels": (*CATEGORICAL, "schedule.logsnr_max=8"),
    "categorical, 256 levels": (*CATEGORICAL, "schedule.logsnr_max=paper"),
}


@dataclass(frozen=True)
class Job:
    """One run of ``train.py``: its folder, and its options."""

    folder: Path
    options: list[str]

    def has_other_options(self) -> bool:
        """Whether the folder holds a finished run with other options."""
        return is_finished(self.folder) and read_overrides(self.folder) != self.options

    def train(self, threads: int) -> None:
        """Train, unless the folder holds the finished run.

        Raises:
            RuntimeError: if the run fails; its output is in ``SEED.txt`` beside its folder.
        """
        if is_finished(self.folder):
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        log = self.folder.with_suffix(".txt")
        with log.open("w") as output:
            code = subprocess.run(
                [sys.executable, str(ROOT / "train.py"), *self.options, f"hydra.run.dir={self.folder}"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(threads)},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if code:
            raise RuntimeError(f"train.py ended with exit code {code}, see {log}")


@dataclass(frozen=True)
class Result:
    """What one run has measured.

    Attributes:
        bits_per_dim: of each test image, (N,).
        steps: of the optimizer.
        seconds: of training.
        fd_pixels: of the samples; NaN if it was not measured.
    """

    bits_per_dim: Tensor
    steps: int
    seconds: float
    fd_pixels: float = math.nan

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """Read the folder of a finished run."""
        run = read_run(folder)
        if run.examples is None:
            raise RunFolderError(f"{folder} has no bound of each example")
        summary = run.summary
        total = run.examples.part("total") * run.unit.per_nat
        fd_pixels = float(summary.get("val/fd_pixels", math.nan))
        return cls(total, int(summary["step"]), float(summary["train_seconds"]), fd_pixels)


def over_seeds(values: Sequence[float]) -> SeedEstimate:
    return SeedEstimate.of([Estimate(value, math.nan) for value in values])


def table(found: Mapping[str, Sequence[Result]]) -> str:
    """A Markdown table: means over seeds and differences to the first recipe, with standard errors."""
    first = next(iter(found))
    baseline = found[first]
    columns = ["recipe", "bits/dim", f"minus {first} (± seeds, ± images)", "steps", "seconds"]
    with_fd = not any(math.isnan(run.fd_pixels) for runs in found.values() for run in runs)
    columns += ["fd_pixels", f"minus {first}"] if with_fd else []
    rows = [columns, ["---"] * len(columns)]
    for recipe, runs in found.items():
        pairs = list(zip(runs, baseline, strict=True))
        bpd = over_seeds([run.bits_per_dim.mean().item() for run in runs])
        by_image = torch.stack([run.bits_per_dim - other.bits_per_dim for run, other in pairs])
        difference = over_seeds(by_image.mean(1).tolist())
        images = Estimate.of(by_image.mean(0))
        row = [
            recipe,
            f"{bpd.mean:.3f} ± {bpd.seed_stderr:.3f}",
            f"{images.mean:+.3f} ± {difference.seed_stderr:.3f} ± {images.stderr:.3f}",
            f"{fmean(run.steps for run in runs):.0f}",
            f"{fmean(run.seconds for run in runs):.0f}",
        ]
        if with_fd:
            fd = over_seeds([run.fd_pixels for run in runs])
            fd_difference = over_seeds([run.fd_pixels - other.fd_pixels for run, other in pairs])
            row += [
                f"{fd.mean:.2f} ± {fd.seed_stderr:.2f}",
                f"{fd_difference.mean:+.2f} ± {fd_difference.seed_stderr:.2f}",
            ]
        if recipe == first:
            row = ["" if name.startswith("minus") else cell for name, cell in zip(columns, row, strict=True)]
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--folder", type=Path, default=Path("outputs/recipes"))
    parser.add_argument("--no-fd", action="store_true", help="do not draw samples")
    parser.add_argument(
        "options", nargs="*", help="options of train.py for all runs, such as trainer.max_steps=500"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: an error over seeds needs at least 2")
    jobs = {
        (recipe, seed): Job(
            arguments.folder.resolve() / recipe.replace(", ", "_").replace(" ", "_") / str(seed),
            [
                *RECIPES[recipe],
                *(() if arguments.no_fd else SAMPLES),
                f"seed={seed}",
                "logger=csv",
                *arguments.options,
            ],
        )
        for seed in range(arguments.seeds)
        for recipe in arguments.recipes
    }
    for job in jobs.values():
        if job.has_other_options():
            parser.error(f"--folder: {job.folder} is a finished run with other options; name another folder")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pending = [pool.submit(job.train, arguments.threads) for job in jobs.values()]
        try:
            for training in pending:
                training.result()
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            raise SystemExit(str(error)) from None
    found: dict[str, list[Result]] = {recipe: [] for recipe in arguments.recipes}
    for (recipe, _), job in jobs.items():
        found[recipe].append(Result.read(job.folder))
    print(table(found))


if __name__ == "__main__":
    main()
