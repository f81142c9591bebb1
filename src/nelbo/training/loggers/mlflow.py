"""MLflow, with images: by default into files in the folder of the run."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from nelbo.training.loggers.guard import Guard
from nelbo.training.loggers.media import COLUMNS, BoundChart, MediaLogger
from nelbo.training.loggers.run_id import check_installed, read_run_id, write_run_id

FOLDER = "mlflow"  # in the run's folder
RETRIES = "2"  # of a request to a server that does not answer; the default of MLflow takes minutes


class MLflow(MLFlowLogger, MediaLogger):
    """A run of MLflow, which a resumed training continues. Samples and charts are artifacts of the run.

    MLflow does not change parameters: a resumed run keeps those that it started with. A failure during
    training disables the logger with one warning.

    Args:
        save_dir: the run's folder; the files are in its subfolder ``mlflow/``.
        experiment_name: MLflow experiment.
        run_name: of the run; None for a random one.
        tracking_uri: server or database; None for ``MLFLOW_TRACKING_URI``, or else the files in ``save_dir``.

    Raises:
        ImportError: if the package is not installed.
        ValueError: for a run in ``save_dir`` whose artifacts are in another place.
        OSError: for a server that does not answer.
    """

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "nelbo",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        check_installed("mlflow", "logger=mlflow", "nelbo[mlflow]")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
        folder = Path(save_dir).absolute() / FOLDER
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name,
            tracking_uri=uri or folder.as_uri(),
            run_id=read_run_id(folder),
        )
        from mlflow.exceptions import MlflowException

        remedy = f"what was logged is at {self._tracking_uri}"
        self._guard = Guard("MLflow", remedy, (MlflowException, OSError))
        if rank_zero_only.rank == 0:
            self._start(folder, is_local=not uri)

    def _start(self, folder: Path, is_local: bool) -> None:
        """Start the run, or continue that of ``folder``."""
        from mlflow.exceptions import MlflowException

        resumed = self._run_id
        try:
            if is_local:
                self._check_place(folder)
            if self._mlflow_client.get_experiment_by_name(self._experiment_name) is None:
                self._mlflow_client.create_experiment(self._experiment_name)
            run_id = self.run_id
            assert run_id is not None
            if resumed:
                self.experiment.update_run(run_id, status="RUNNING")
            self._params = set(self.experiment.get_run(run_id).data.params)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise OSError(f"logger=mlflow: {self._tracking_uri}: {reason}") from error
        if not resumed:
            write_run_id(folder, run_id)

    def _check_place(self, folder: Path) -> None:
        """Check that the files of a store name no place outside of the folder.

        Raises:
            ValueError: naming the place.
        """
        experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
        places = [] if experiment is None else [str(experiment.artifact_location)]
        if self._run_id is not None:
            places.append(str(self._mlflow_client.get_run(self._run_id).info.artifact_uri))
        for place in places:
            if not place.startswith(f"{folder.as_uri()}/") or ".." in place:
                raise ValueError(
                    f"{folder}: its artifacts are at {place}, outside of this folder; rename "
                    f"{folder.name} to start a new run of MLflow"
                )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the parameters that the run does not have yet."""
        from lightning.fabric.utilities.logger import _convert_params, _flatten_dict

        flat = _flatten_dict(_convert_params(params))
        new = {name: value for name, value in flat.items() if name not in self._params}
        self._params |= set(new)
        self._guard(lambda: super(MLflow, self).log_hyperparams(new))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        self._guard(lambda: super(MLflow, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        """Log an image as the artifact ``<key>/step_00000500.png``."""
        self._guard(
            lambda: self.experiment.log_image(self.run_id, image, f"{key}/step_{step:08d}.png"),
        )

    @rank_zero_only
    def log_bound(self, chart: BoundChart, step: int) -> None:
        """Log L_t against t as an image, and its values as a JSON table next to it."""
        super().log_bound(chart, step)
        content = {
            "columns": list(COLUMNS),
            "data": chart.rows(),
        }
        path = f"{chart.split}/L_t_against_t/step_{step:08d}.json"
        self._guard(lambda: self.experiment.log_dict(self.run_id, content, path))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Set the status of the run."""
        self._guard(lambda: super(MLflow, self).finalize(status))
