"""Which runs are finished, and how one that is not is taken up."""

import json
import shutil
from pathlib import Path


def is_finished(run_dir: Path) -> bool:
    """Whether the run in this folder was trained, tested and summed up."""
    try:
        json.loads((run_dir / "summary.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def start_anew(run_dir: Path) -> None:
    """Clear what an unfinished run left behind, but for its configuration."""
    for name in ("checkpoints", "samples", "wandb"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in ("metrics.csv", "bound.parquet", "examples.parquet", "summary.json"):
        (run_dir / name).unlink(missing_ok=True)
