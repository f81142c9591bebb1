"""Downloads by torchvision, with one-line errors."""

from pathlib import Path
from typing import Any

from filelock import FileLock


def download(source: type[Any], root: str) -> None:
    """Download the data set of a torchvision class into ``root``, one process at a time.

    Raises:
        OSError: without network, or if ``root`` cannot be written.
    """
    lock = Path(root) / f".{source.__name__}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # another process may have completed the download
            source(root, download=True)
    except (OSError, RuntimeError) as error:  # torchvision reports failed mirrors as RuntimeError
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise OSError(
            f"cannot download {source.__name__} into {root} ({reason}): "
            "set data.root to a folder with the data"
        ) from error
