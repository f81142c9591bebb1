"""Run folders made up from a known bound, so that pages and curves are tested without training."""

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from figures.browser import QUIET, find_browser
from nelbo.atomic_file import write_json
from nelbo.data import DataRecord, DataSpec
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.t_bins import t_bins
from nelbo.evaluation.units import unit_of
from nelbo.runs import bound_table as table
from nelbo.runs import example_table

DIMS, T, EXAMPLES = 64, 200, 180
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
TIMESTEPS = torch.arange(1, T + 1)
CONFIG = {
    "data": {"_target_": "nelbo.data.digits.Digits", "batch_size": 128},
    "model": {"_target_": "nelbo.models.unet.UNet", "channels": 32},
    "schedule": {"_target_": "nelbo.diffusion.schedules.cosine.CosineSchedule", "num_steps": T},
    "parameterization": {"_target_": "nelbo.diffusion.parameterizations.v.V"},
    "decoder": {"_target_": "nelbo.diffusion.decoders.DiscretizedGaussian", "low": -1.0, "high": 1.0},
    "optimizer": {"lr": 0.001},
    "run_dir": "${hydra:runtime.output_dir}",
}


def true_terms(step: int) -> np.ndarray:
    """Nats of L_0 and L_2..L_T after so many steps."""
    t = np.arange(1, T + 1)
    nats = 6.0 * t**-1.1 * (1 + 4 * np.exp(-step / 150))
    nats[0] = 25.0 + 5 * np.exp(-step / 100)
    return nats


def draw_table(
    rng: np.random.Generator,
    mean: np.ndarray,
    draws: int,
    with_error: bool,
    interpolation: float = math.nan,
    timesteps: torch.Tensor = TIMESTEPS,
) -> StepTable:
    """Each step drawn about so many times, some never."""
    count = rng.poisson(draws, len(mean))
    count[0] = max(count[0], 1)
    sums = np.zeros((5, len(mean)))
    for i, n in enumerate(count):
        x = rng.gamma(4.0, mean[i] / 4.0, n)
        error = rng.gamma(4.0, 0.25 * (0.0005 + (i / len(mean)) ** 2 / 3), n)
        sums[:, i] = (
            n,
            x.sum(),
            (x**2).sum(),
            error.sum(),
            n * interpolation,
        )
    if not with_error:
        sums[3:] = math.nan
    return StepTable(timesteps, *torch.from_numpy(sums))


def part_metrics(split: str, mean: np.ndarray, error: float, discrete: bool) -> dict[str, float]:
    per_nat = 1 / (DIMS * math.log(2)) if discrete else 1.0
    parts = {
        "bpd" if discrete else "nelbo": mean.sum() + 1e-6,
        "L_0": mean[0],
        "L_t": mean[1:].sum(),
        "L_T": 1e-6,
    }
    found = {f"{split}/{name}": value * per_nat for name, value in parts.items()}
    found |= {f"{split}/{name}_stderr": error * value * per_nat for name, value in parts.items()}
    if split != "train":
        total = parts["bpd" if discrete else "nelbo"]
        edges = {"t_2_10": slice(1, 10), "t_11_100": slice(10, 100), "t_101_1000": slice(100, None)}
        found |= {f"{split}/share/{name}": mean[span].sum() / total for name, span in edges.items()}
        found |= {f"{split}/share/L_0": mean[0] / total, f"{split}/share/L_T": 1e-6 / total}
    return found


def write_run(
    folder: Path, *, seed: int = 0, discrete: bool = True, config: dict | None = None, better: float = 1.0
) -> Path:
    """A finished run of 400 steps with a validation every 50."""
    rng = np.random.default_rng(seed)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(CONFIG | (config or {}), sort_keys=False))
    (folder / "samples").mkdir()
    rows: list[dict[str, float]] = []
    for step in range(10, 401, 10):
        live = part_metrics("train", better * true_terms(step) * rng.normal(1, 0.05), 0.05, discrete)
        rows.append(
            {"step": step - 1, "train/loss": 2 / step, "throughput/images_per_second": rng.normal(600, 20)}
            | live
        )
        if step % 50:
            continue
        mean = better * true_terms(step)
        rows.append({"step": step - 1} | part_metrics("val", mean, 0.02, discrete))
        for split, draws in (("train", 30), ("val", 6)):
            table.append(folder / "bound.parquet", step, split, draw_table(rng, mean, draws, split == "val"))
        pixels = rng.normal(128, 20 + step / 8, (72, 72)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"samples/step_{step:08d}.png")
    test = part_metrics("test", better * true_terms(400), 0.01, discrete)
    rows.append({"step": 400} | test)
    table.append(folder / "bound.parquet", 400, "test", draw_table(rng, better * true_terms(400), 40, True))
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    ledger = {
        "data": "Digits",
        "dims": DIMS,
        "levels": 17 if discrete else None,
        "split": "test",
        "num_examples": 180,
        "decoder": "discretized Gaussian, 17 levels, exact CDF",
        "T": T,
        "clip": None,
        "weights": "ema",
        "stderr": 0.1,
    }
    summary = {**test, "step": 400, "train_seconds": 125.0, "ledger": ledger}
    (folder / "summary.json").write_text(json.dumps(summary))
    data = DataRecord("Digits", DataSpec((1, 8, 8), ledger["levels"], 10), {}, None, {}, None)
    write_json(folder / "data_record.json", data.to_dict())
    return folder


def write_evaluation(
    folder: Path,
    *,
    seed: int = 0,
    timesteps: torch.Tensor = TIMESTEPS,
    better: float = 1.0,
    interpolation: float = 0.4,
    split: str = "test",
    **ledger: object,
) -> Path:
    """The evaluation of such a run on a chain of its timesteps, with the same examples every time."""
    folder.mkdir(parents=True)
    rng, unit = np.random.default_rng(seed), unit_of(DIMS, 17)
    ends = timesteps.numpy()
    begins = np.append(1, ends[:-1] + 1)
    nats = better * true_terms(400)
    mean = np.array([nats[low - 1 : high].sum() for low, high in zip(begins, ends, strict=True)])
    groups = t_bins(timesteps)
    by_group = np.zeros(len(groups.columns))
    np.add.at(by_group, groups.of_step.numpy(), mean)
    by_group[-1] = 1e-6
    hardness = np.random.default_rng(7).gamma(25.0, 1 / 25.0, EXAMPLES)  # what examples have in common
    values = by_group * hardness[:, None] * rng.normal(1, 0.01, (EXAMPLES, len(by_group)))
    parts = {
        "bpd": values.sum(1),
        "L_0": values[:, 0],
        "L_t": values[:, 1:-1].sum(1),
        "L_T": values[:, -1],
    }
    figures = {f"{split}/{name}": x.mean() * unit.per_nat for name, x in parts.items()}
    figures |= {
        f"{split}/{name}_stderr": x.std(ddof=1) / math.sqrt(EXAMPLES) * unit.per_nat
        for name, x in parts.items()
    }
    chance = {f"{split}/bpd_stderr_monte_carlo": 0.6 * figures[f"{split}/bpd_stderr"]}
    shares = {
        f"{split}/share/{name}": x / by_group.sum() for name, x in zip(groups.columns, by_group, strict=True)
    }
    K = len(timesteps)
    other = figures | {"difference": 0.25, "difference_stderr": 0.01}
    other[f"{split}/bpd"] += 0.25
    other[f"{split}/L_0"] += 0.25
    content = {
        **figures,
        **chance,
        **shares,
        "ledger": {
            "data": "Digits",
            "dims": DIMS,
            "levels": 17,
            "split": split,
            "num_examples": EXAMPLES,
            "decoder": "discretized Gaussian, 17 levels, exact CDF",
            "schedule": "CosineSchedule",
            "T": T,
            "K": K,
            "timesteps": f"1..{T}" if K == T else " ".join(map(str, timesteps.tolist())),
            "logsnr_max": 5.5,
            "logsnr_min": -19.8,
            "variance": "LearnedRange",
            "first_step": "beta",
            "clip": None,
            "weights": "ema",
            "precision": "float32",
            "estimator": "full chain",
            "seed": 0,
            "num_evaluations": EXAMPLES * (K + 1),
            **ledger,
        },
        "variances": {"LearnedRange": figures, "FixedSmall": other},
        "checkpoint": "/models/last.ckpt",
        "step": 400,
        "config": CONFIG,
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    table.append(
        folder / "bound.parquet", 400, split, draw_table(rng, mean, 60, True, interpolation, timesteps)
    )
    example_table.write(folder / "examples.parquet", groups.columns, torch.from_numpy(values))
    return folder


def copies(write: Callable[..., Path], originals: Path) -> Callable[..., Path]:
    """``write``, which is called once for each choice of its options and copied from then on."""
    written: dict[bytes, Path] = {}

    def make(folder: Path, **options: object) -> Path:
        key = pickle.dumps(options)
        if key not in written:
            written[key] = write(originals / str(len(written)), **options)
        return Path(shutil.copytree(written[key], folder, dirs_exist_ok=True, copy_function=shutil.copyfile))

    return make


@pytest.fixture(scope="session")
def make_evaluation(tmp_path_factory) -> Callable[..., Path]:
    return copies(write_evaluation, tmp_path_factory.mktemp("evaluations"))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory) -> Callable[..., Path]:
    return copies(write_run, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """One run that nobody changes."""
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    asked = os.environ.get("NELBO_BROWSER", "")
    give_up = pytest.fail if asked else pytest.skip
    if find_spec("playwright") is None:
        give_up("playwright is not installed")
    try:
        found = find_browser()
    except FileNotFoundError as error:
        give_up(str(error))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Opens a page and writes down what it does."""
    opened = []

    def open_page(path, size, scheme="light"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        seen = SimpleNamespace(page=page, width=width, console=[], errors=[], requests=[], dialogs=[])
        page.on("console", lambda message: seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(".plot:not([hidden]) .main-svg")
        opened.append(context)
        return seen

    yield open_page
    for context in opened:
        context.close()
