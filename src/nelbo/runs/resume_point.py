"""The checkpoint that a run resumes from, and the files of the run as they were then."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from nelbo import torch_file
from nelbo.atomic_file import DamagedFileError, read_yaml, unfinished_files
from nelbo.data import DataRecord
from nelbo.runs import ema_snapshots, history, metrics_file
from nelbo.runs.paths import CHECKPOINTS, CONFIG, LAST, PREVIOUS, REPORT, SUMMARY


@dataclass(frozen=True)
class ResumePoint:
    """A verified checkpoint.

    Attributes:
        path: of the file.
        content: the parts of it that describe the run; no weights.
    """

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps that are completed."""
        return self.content["global_step"]

    @classmethod
    def read(cls, path: Path) -> "ResumePoint":
        """Read and verify a checkpoint.

        Raises:
            DamagedFileError: naming the file, when it is missing, damaged or of another kind.
        """
        content = torch_file.load(path, mmap=True)
        match content:
            case {"global_step": int(), "nelbo": {"validated_at": int(), "data": dict()}}:
                history.check(content.get(history.HISTORY), path)
            case _:
                raise DamagedFileError(f"{path} is not a checkpoint of a run")
        # not the tensors: they would keep the file open after it is replaced
        kept = {name: content[name] for name in ("global_step", history.HISTORY)}
        state = {name: value for name, value in content["nelbo"].items() if name != "timesteps"}
        return cls(path, {**kept, "nelbo": state})


def newest_checkpoint(run_dir: Path) -> ResumePoint | None:
    """The last checkpoint that is not damaged; warns of those that are. None if there is no checkpoint.

    Raises:
        ValueError: when all are damaged, or the other files of the run show that one is missing.
    """
    damaged = []
    for path in (run_dir / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        try:
            point = ResumePoint.read(path)
        except DamagedFileError:
            damaged.append(path)
            continue
        for other in damaged:
            rank_zero_warn(f"{other} is damaged: resuming from {path}")
        return point
    if damaged:
        raise ValueError(
            f"{' and '.join(map(str, damaged))}: damaged, and there is no other checkpoint to resume from; "
            f"remove it to start again with the same resume={run_dir}"
        )
    if (run_dir / SUMMARY).exists():  # starting again would remove its results
        raise ValueError(
            f"{run_dir} has a {SUMMARY} but no checkpoint: restore {LAST}, or remove {SUMMARY} to train from "
            "the beginning"
        )
    metrics = run_dir / metrics_file.METRICS_FILE
    trained = metrics_file.last_step(metrics)
    if trained >= 0 and trained > read_yaml(run_dir / CONFIG).get("checkpoint_every", trained):
        raise ValueError(
            f"{run_dir} was trained to step {trained} at least and has no checkpoint: restore {LAST}, or "
            f"remove {metrics.name} to train from the beginning"
        )
    return None


def check_data(
    run_dir: Path, point: ResumePoint | None, data: DataRecord, conditional: bool, allow_changed_data: bool
) -> None:
    """Compare the data with the record in the checkpoint.

    Args:
        run_dir: the run's folder.
        point: the checkpoint; None to start again.
        data: the current data.
        conditional: whether the network receives class labels, so that class names must not change.
        allow_changed_data: warn instead of raising an error, where the class names are the same.

    Raises:
        ValueError: naming what differs.
    """
    if point is None:
        return
    before = DataRecord.from_dict(point.content["nelbo"]["data"])
    found = before.differences(data)
    if not found:
        return
    moved = f" (data.root was {before.root}, and is {data.root})" if before.root != data.root else ""
    what = f"resume={run_dir}: the data has changed since the checkpoint{moved}: {'; '.join(found)}"
    if conditional and before.spec.class_names != data.spec.class_names:
        raise ValueError(f"{what}; the model was trained with these class names, so restore them")
    if not allow_changed_data:
        raise ValueError(f"{what}; restore the data, or train on the new data with allow_changed_data=true")
    rank_zero_warn(what)


def rewind(run_dir: Path, point: ResumePoint | None) -> None:
    """Restore the files of a run to their state at the checkpoint, or before the first step. Call on rank 0.

    Raises:
        OSError: for a file that cannot be written.
    """
    history.restore(run_dir, None if point is None else point.content)
    ema_snapshots.remove_after(run_dir, 0 if point is None else point.step)
    last, previous = run_dir / LAST, run_dir / PREVIOUS
    if point is not None and point.path == previous and last.exists():
        last.replace(last.with_suffix(".damaged"))  # else the next save would move it to previous.ckpt
    for path in (run_dir / SUMMARY, run_dir / REPORT, *(path for path, _ in unfinished_files(run_dir))):
        path.unlink(missing_ok=True)
