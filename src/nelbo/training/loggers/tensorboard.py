"""TensorBoard, with images."""

from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from nelbo.training.loggers.media import MediaLogger
from nelbo.training.loggers.run_id import check_installed


class TensorBoard(TensorBoardLogger, MediaLogger):
    """Lightning's TensorBoard logger, which also writes images.

    Args:
        save_dir: the run's folder.
        name: subfolder of the event files.
        version: subfolder of ``name``; empty for none.
        **options: of Lightning's ``TensorBoardLogger``.

    Raises:
        ImportError: if the package is not installed.
    """

    def __init__(
        self, save_dir: str, name: str = "tensorboard", version: int | str | None = "", **options: Any
    ) -> None:
        check_installed("tensorboard", "logger=tensorboard", "tensorboard")
        super().__init__(save_dir, name=name, version=version, **options)

    @rank_zero_only
    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        """Write an image; one of a single channel becomes RGB."""
        self.experiment.add_image(key, np.asarray(image.convert("RGB")), step, dataformats="HWC")
