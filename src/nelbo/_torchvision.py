"""Let torchvision be imported with a CPU-only torch.

PyPI's Linux wheel of torchvision is built for CUDA. With a CPU-only torch its compiled operators
cannot be loaded, and ``import torchvision`` fails with ``operator torchvision::nms does not exist``;
torchmetrics imports torchvision, and Lightning imports torchmetrics, so ``import lightning`` fails too.
Declaring the two missing operators is enough for all that nelbo uses (datasets, transforms, utils);
``torchvision.ops.nms`` itself stays unavailable.

The declaration waits until torchvision is first imported, so ``import nelbo`` costs nothing.
"""

import importlib.abc
import importlib.util
import sys
from pathlib import Path
from typing import Any

_MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a torch.library.Library takes its operators with it when collected


class _TorchvisionFinder(importlib.abc.MetaPathFinder):
    """Runs once, just before torchvision is imported, and leaves the finding to the others."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "torchvision":
            # a new list: the old one is being walked through right now
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            _declare_missing_operators()


def install() -> None:
    """Arrange for the operators to be declared when torchvision is first imported."""
    if "torchvision" in sys.modules:
        return
    if not any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionFinder())


def _declare_missing_operators() -> None:
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue  # built for another torch: the very case this module exists for
    if not hasattr(torch.ops.torchvision, "nms"):
        declared = torch.library.Library("torchvision", "DEF")
        for schema in _MISSING_OPERATORS:
            declared.define(schema)
        _libraries.append(declared)
