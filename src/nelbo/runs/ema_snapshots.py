"""``ema_snapshots/step_<n>.pt``: power-function averages of the weights at some steps of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nelbo import torch_file
from nelbo.atomic_file import DamagedFileError, replacing
from nelbo.interop.state_dict import is_state_dict
from nelbo.option_types import MAX_SIGMA_REL, MIN_SIGMA_REL

FOLDER = "ema_snapshots"
KEY = "power_function_ema"  # of the averages in a checkpoint


@dataclass(frozen=True)
class EMASnapshot:
    """Power-function averages of the parameters after one step.

    Attributes:
        step: optimizer steps.
        sigma_rel: relative width of each average.
        averages: of each width, the parameters by name.
    """

    step: int
    sigma_rel: list[float]
    averages: list[dict[str, Tensor]]

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of each parameter, by name."""
        return _shapes(self.averages[0])

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for ``torch.save``."""
        return {"step": self.step, "sigma_rel": self.sigma_rel, "averages": self.averages}

    @classmethod
    def from_dict(cls, content: Any, path: Path | str) -> "EMASnapshot":
        """What :meth:`to_dict` returned.

        Raises:
            DamagedFileError: naming ``path``, for other content.
        """
        match content:
            case {"step": int(step), "sigma_rel": [float(), *_] as widths, "averages": list(averages)}:
                if (
                    step > 0
                    and len(widths) == len(averages)
                    and all(isinstance(w, float) and MIN_SIGMA_REL <= w <= MAX_SIGMA_REL for w in widths)
                    and all(is_state_dict(average) for average in averages)
                    and all(_shapes(average) == _shapes(averages[0]) for average in averages)
                ):
                    return cls(step, list(widths), averages)
        raise DamagedFileError(f"{path} does not have the power-function averages of a run")


def write(run_dir: Path, snapshot: EMASnapshot) -> None:
    """Write a snapshot, or replace that of the same step.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    path = run_dir / FOLDER / f"step_{snapshot.step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        torch_file.save(snapshot.to_dict(), unfinished)


def read_before(run_dir: Path, step: int) -> Iterator[EMASnapshot]:
    """The snapshots of the steps before ``step``, in order, one in memory at a time.

    Raises:
        DamagedFileError: naming a file that is damaged.
    """
    for number, path in _files(run_dir):
        if number < step:
            yield EMASnapshot.from_dict(torch_file.load(path, mmap=True), path)


def remove_after(run_dir: Path, step: int) -> None:
    """Remove the snapshots of the steps after ``step``."""
    for number, path in _files(run_dir):
        if number > step:
            path.unlink()


def _files(run_dir: Path) -> list[tuple[int, Path]]:
    """Step and path of each snapshot, in order."""
    paths = sorted((run_dir / FOLDER).glob("step_*.pt"))
    return [(int(number), path) for path in paths if (number := path.stem.removeprefix("step_")).isdecimal()]


def _shapes(average: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in average.items()}
