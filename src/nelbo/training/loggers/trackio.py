"""trackio, with images: a local dashboard with the interface of W&B."""

import io
import re
import secrets
from argparse import Namespace
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from nelbo.training.loggers.media import COLUMNS, BoundChart, MediaLogger
from nelbo.training.loggers.run_id import check_installed, read_run_id, write_run_id

if TYPE_CHECKING:
    from trackio.run import Run

FOLDER = "trackio"  # in the run's folder
NAME = re.compile(r"[\w-][\w .=-]{0,100}")  # is a folder of trackio


class Trackio(MediaLogger):
    """A run of trackio, which a resumed training continues.

    trackio stores all projects in one folder of the user: ``TRACKIO_DIR``, by default
    ``~/.cache/huggingface/trackio``. Its own variables ``TRACKIO_SPACE_ID`` and ``TRACKIO_SERVER_URL`` name a
    server.

    Args:
        save_dir: the run's folder, whose ``trackio/`` has the name of the run.
        project: of trackio.
        name: of the run; None for the name of the folder. A suffix makes it unique.
        group: group of runs, such as a sweep.

    Raises:
        ImportError: if the package is not installed.
        ValueError: for a name that cannot be that of a folder.
    """

    def __init__(
        self, save_dir: str, project: str = "nelbo", name: str | None = None, group: str | None = None
    ) -> None:
        check_installed("trackio", "logger=trackio", "nelbo[trackio]")
        super().__init__()
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(f"logger.trackio.name={name} must be letters, digits, spaces, and . = - _")
        self._project, self._group = project, group
        self._folder = Path(save_dir).absolute() / FOLDER
        self._title = name or re.sub(r"[^\w-]+", "-", self._folder.parent.name)[:100]
        self._name: str | None = None
        self._config: dict[str, Any] = {}
        self._run: Run | None = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The name of the run; None before its start."""
        return self._name

    @property
    def experiment(self) -> "Run":
        """The run; it is started by the first use."""
        if self._run is None:
            import trackio

            known = read_run_id(self._folder)
            self._name = known or f"{self._title}-{secrets.token_hex(3)}"
            with redirect_stdout(io.StringIO()):  # advertisements
                self._run = trackio.init(
                    project=self._project,
                    name=self._name,
                    group=self._group,
                    config=self._config,
                    resume="allow" if known else "never",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
            if known is None:
                write_run_id(self._folder, self._name)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Store the configuration; it is written with the first values."""
        values = params if isinstance(params, dict) else vars(params)
        self._config = {str(name).lstrip("_"): value for name, value in values.items()}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        kept = {name: value for name, value in metrics.items() if name != "step"}
        self.experiment.log(kept, step=step)

    @rank_zero_only
    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        """Log an image as ``trackio.Image``, which is stored as a PNG file."""
        import trackio

        self.experiment.log({key: trackio.Image(image)}, step=step)

    @rank_zero_only
    def log_bound(self, chart: BoundChart, step: int) -> None:
        """Log L_t against t as an image and as a table."""
        import pandas as pd
        import trackio

        super().log_bound(chart, step)
        rows = pd.DataFrame(chart.rows(), columns=list(COLUMNS))
        self.experiment.log({f"{chart.split}/L_t_against_t_table": trackio.Table(dataframe=rows)}, step=step)

    @rank_zero_only
    def finish(self) -> None:
        """Wait until everything is written, and end the run."""
        if self._run is not None:
            import trackio

            with redirect_stdout(io.StringIO()):
                trackio.finish()
            self._run = None
