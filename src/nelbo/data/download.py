"""Let torchvision fetch a data set, and say in one line why it could not."""

from typing import Any


def download(source: type[Any], root: str) -> None:
    """Download the data set of a torchvision class into ``root``.

    Raises:
        OSError: without network, or if ``root`` cannot be written.
    """
    try:
        source(root, download=True)
    except (OSError, RuntimeError) as error:  # torchvision reports failed mirrors as RuntimeError
        reason = str(error).strip().splitlines()[-1]
        raise OSError(
            f"cannot download {source.__name__} into {root} ({reason}): set data.root to a folder "
            f"that already holds it"
        ) from error
