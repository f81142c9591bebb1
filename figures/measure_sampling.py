"""Measure samplers and chains for docs/sampling.md, on a model of the bundled digits.

    python -m figures.measure_sampling --checkpoint outputs/.../checkpoints/last.ckpt

Computes fd_pixels between the training images and as many samples as there are test images, for every
sampler, chain and budget of network evaluations. The held-out images are measured in the same way as a
reference. Writes docs/images/sampling.csv with one row per seed. After an interruption, only missing rows
are measured.
"""

import argparse
import csv
from itertools import product
from pathlib import Path

from figures.drawing import draw, make_generator, options, read
from nelbo.compose.trained import TrainedModel, read_data
from nelbo.evaluation.fingerprint import fingerprint
from nelbo.evaluation.generation import SampleGenerator
from nelbo.evaluation.sample_metrics.features import Pixels
from nelbo.evaluation.sample_metrics.quality import sample_quality
from nelbo.evaluation.sample_metrics.reference import make_reference

FILE = Path(__file__).parents[1] / "docs" / "images" / "sampling.csv"
COLUMNS = ("weights", "sampler", "spacing", "budget", "steps", "evaluations", "seed", "fd_pixels")
SAMPLERS = {
    "ancestral": ("sampler=ancestral",),
    "ddim": ("sampler=ddim",),
    "heun": ("sampler=heun",),
    "dpm_solver_pp": ("sampler=dpm_solver_pp",),
    "dpm_solver_pp stochastic": ("sampler=dpm_solver_pp", "sampler.stochastic=true"),
}
SPACINGS = ("even", "trailing", "quadratic", "uniform_logsnr", "optimal")
DATA = "data"  # instead of a sampler: the images of a split
BUDGETS = (5, 10, 20, 50)
SEEDS = range(3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--to", type=Path, default=FILE)
    arguments = parser.parse_args()
    model = read(arguments.checkpoint)
    data, features = read_data(model), Pixels()
    reference = make_reference(data, "train", features, pairwise=0)
    weights = fingerprint(model.weights.network)
    if any(row["weights"] != weights for row in rows(arguments.to)):
        raise ValueError(f"{arguments.to} contains values of another model: remove it, or set --to")
    done = {(row["sampler"], row["spacing"], row["budget"], row["seed"]) for row in rows(arguments.to)}

    def write(*values: object) -> None:
        is_new = not arguments.to.exists()
        with arguments.to.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow((weights, *values))
        print(*values, flush=True)

    n = len(data.split("test"))
    for split in ("val", "test"):
        if (DATA, split, "", "") not in done:
            distance = sample_quality(data.take(split, n).x0, reference, features)["fd_pixels"]
            write(DATA, split, "", "", "", "", f"{distance:.6g}")
    for seed, budget, sampler, spacing in product(SEEDS, BUDGETS, SAMPLERS, SPACINGS):
        if (sampler, spacing, str(budget), str(seed)) in done:
            continue
        generator = within_budget(arguments.checkpoint, model, sampler, spacing, budget, seed)
        steps, evaluations = generator.chain.num_steps, generator.sampler.evaluations(generator.chain)
        distance = sample_quality(draw(generator, model, n), reference, features)["fd_pixels"]
        write(sampler, spacing, budget, steps, evaluations, seed, f"{distance:.6g}")


def within_budget(
    checkpoint: Path, model: TrainedModel, sampler: str, spacing: str, budget: int, seed: int
) -> SampleGenerator:
    """A generator with the most steps within the budget (Heun needs two evaluations for most steps)."""
    for steps in range(budget, 0, -1):
        chosen = (*SAMPLERS[sampler], f"sampler.steps={steps}", f"spacing={spacing}", f"seed={seed}")
        generator = make_generator(options(checkpoint, *chosen), model)
        if generator.sampler.evaluations(generator.chain) <= budget:
            return generator
    raise AssertionError("one step is one evaluation")


def rows(path: Path = FILE) -> list[dict[str, str]]:
    """The rows of the file, as text; empty if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
