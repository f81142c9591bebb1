"""Results that are measured once on a trained model and stored next to its checkpoint.

``last.ckpt`` gets ``last.ema.moments.npz`` and ``last.ema.step_costs.npz``. A file that was measured on other
weights, or in another way, is measured again.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from nelbo import array_file


def cached(
    path: Path,
    metadata: Mapping[str, str],
    measure: Callable[[], dict[str, Tensor]],
    at_least: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Read the arrays of a file, or measure and store them.

    A file that cannot be written costs a warning; the result is used all the same.

    Args:
        path: of the file.
        metadata: everything that the result depends on. A file with another description is replaced.
        measure: makes the arrays.
        at_least: numbers that make a result more accurate, such as of examples. A file with larger ones is
            used too.
    """
    if path.is_file():
        try:
            arrays, stored = array_file.load(path)
        except ValueError as error:
            warnings.warn(f"{error}: it is measured again", stacklevel=2)
        else:
            enough = all(_number(stored.pop(name, None)) >= least for name, least in at_least.items())
            if enough and stored == dict(metadata):
                return arrays
    arrays = measure()
    try:
        array_file.save(path, arrays, {**metadata, **{name: str(value) for name, value in at_least.items()}})
    except OSError as error:
        warnings.warn(f"{error}: it will be measured again next time", stacklevel=2)
    return arrays


def _number(text: str | None) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else -1
