"""The table at the end of a run."""

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nelbo.evaluation.units import Unit

PARTS = (
    ("L_0", "reconstruction"),
    ("L_t", "denoising"),
    ("L_T", "prior"),
)


def print_bound(metrics: Mapping[str, float], splits: tuple[str, ...], unit: Unit, run_dir: Path) -> None:
    """L_0, L_t, L_T and their sum for each split, and where the files are.

    Args:
        metrics: flat, as :meth:`Unit.metrics` names them.
        splits: the columns.
        unit: of the metrics.
        run_dir: the run's folder.
    """
    table = Table(title=f"variational bound, {unit.label}", title_justify="left", title_style="bold")
    table.add_column("term", no_wrap=True)
    splits = tuple(split for split in splits if f"{split}/{unit.metric}" in metrics)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
        if unit.is_code_length:
            table.add_column("share", justify="right", style="dim", no_wrap=True)
    for key, meaning in PARTS:
        name = Text.assemble(f"{key}  ", (meaning, "dim"))
        table.add_row(name, *_cells(metrics, splits, key, unit))
    table.add_section()
    table.add_row(Text("total", style="bold"), *_cells(metrics, splits, unit.metric, unit))
    console = Console()
    console.print()
    console.print(table)
    for what, where in _files(run_dir):
        console.print(Text.assemble((f"{what:<11}", "dim"), where), soft_wrap=True)


def _cells(metrics: Mapping[str, float], splits: tuple[str, ...], key: str, unit: Unit) -> list[Text]:
    cells: list[Text] = []
    for split in splits:
        value, error = metrics[f"{split}/{key}"], metrics[f"{split}/{key}_stderr"]
        cells.append(Text(f"{_short(value)} ± {_short(error)}"))
        if unit.is_code_length:
            cells.append(Text(f"{value / metrics[f'{split}/{unit.metric}']:.1%}"))
    return cells


def _short(value: float) -> str:
    """Four decimals, fewer for the large figures of an untrained model."""
    if math.isnan(value):
        return "?"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _files(run_dir: Path) -> list[tuple[str, str]]:
    files = [("run", str(run_dir))]
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    if checkpoint.exists():
        files.append(("weights", str(checkpoint)))
    samples = sorted((run_dir / "samples").glob("*.png"))
    if samples:
        files.append(("samples", str(samples[-1])))
    report = run_dir / "report.html"
    if report.exists():
        files.append(("look", str(report)))
    wandb_runs = sorted((run_dir / "wandb").glob("*run-*"))
    if wandb_runs:
        files.append(("look", f"wandb leet {wandb_runs[-1]}"))
    return files
