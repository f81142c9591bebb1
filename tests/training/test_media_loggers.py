"""TensorBoard, MLflow, trackio and W&B hold scalars, samples and L_t against t: read by their own clients."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nelbo.runs.paths import SAMPLES
from nelbo.training.loggers import charts, run_id
from nelbo.training.loggers.charts import Curve
from nelbo.training.loggers.media import shown_curves

ROOT = Path(__file__).parents[2]
LOGGERS = "logger=[wandb,tensorboard,mlflow,trackio]"
READ_TRACKIO = """
import io
import json
import trackio
from trackio.sqlite_storage import SQLiteStorage
runs = list(trackio.Api().runs("nelbo"))
logs = SQLiteStorage.get_logs("nelbo", runs[0].name, run_id=runs[0].id)
print(json.dumps({"names": [run.name for run in runs], "config": runs[0].config, "logs": logs}))
"""


def curve(scale: float) -> Curve:
    t = np.array([1.0, 3.0, 30.0, 300.0])
    return Curve(t, scale * np.array([1.0, 0.1, -0.01, 0.001]), np.full(4, 0.001))


def test_a_chart_of_curves_has_the_colours_of_the_first_and_the_last_step():
    image = np.asarray(charts.draw_curves({10: curve(2.0), 500: curve(1.0)}, "val", "nats"))
    assert image.shape == (charts.HEIGHT * 2, charts.WIDTH * 2, 3)
    found = {tuple(pixel) for pixel in image.reshape(-1, 3)}
    middle = tuple(round((a + b) / 2) for a, b in zip(charts.OLD, charts.NEW, strict=True))
    assert {middle, charts.NEW} <= found


def test_a_chart_without_positive_values_is_drawn():
    nothing = Curve(np.array([1.0, 2.0]), np.array([-1.0, np.nan]), np.zeros(2))
    assert charts.draw_curves({1: nothing}, "val", "nats").size == (charts.WIDTH * 2, charts.HEIGHT * 2)


def test_the_bar_of_the_shares_has_their_widths():
    shares = {"L_0": 0.5, "t_2_10": 0.25, "t_11_100": 0.25, "L_T": 0.0}
    row = np.asarray(charts.draw_shares(shares, "val"))[160]
    first = tuple(int(charts.BIN_COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    width = sum(tuple(pixel) == first for pixel in row)
    assert width == pytest.approx(0.5 * (charts.WIDTH - 48) * 2, abs=2)


def test_few_of_many_curves_are_shown_with_the_first_and_the_last():
    steps = list(shown_curves({step: curve(1.0) for step in range(0, 1000, 10)}))
    assert len(steps) == 6
    assert (steps[0], steps[-1]) == (0, 990)


@pytest.mark.parametrize("content", ["../../elsewhere", "a b", "", "x" * 200])
def test_an_id_that_could_be_a_path_is_refused(content, tmp_path):
    (tmp_path / run_id.FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match="not the id of a run"):
        run_id.read_run_id(tmp_path)


@pytest.mark.parametrize(
    ("logger", "package"),
    [("tensorboard", "tensorboard"), ("mlflow", r"nelbo\[mlflow\]"), ("trackio", r"nelbo\[trackio\]")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    logger, package, compose, tmp_path, monkeypatch
):
    from hydra.utils import instantiate

    node = compose(f"logger={logger}", run_dir=tmp_path).logger[logger]
    monkeypatch.setattr(run_id, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=f"logger={logger} needs .*: pip install {package}"):
        instantiate(node)


@pytest.fixture(scope="module")
def logged(tiny, tmp_path_factory) -> Path:
    """The folder of a run with all loggers: 6 steps, resumed up to 9."""
    folder = tmp_path_factory.mktemp("logged")
    common = [LOGGERS, "lr_schedule=constant"]
    for arguments in (
        [*tiny, *common, f"hydra.run.dir={folder / 'run'}"],
        [f"resume={folder / 'run'}", "trainer.max_steps=9"],
    ):
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment(folder), timeout=600)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        assert "Trackio" not in ended.stdout
    return folder / "run"


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "TRACKIO_"))}
    return kept | {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_MODE": "offline"}


def sample_grid(logged: Path, step: int) -> np.ndarray:
    return np.asarray(Image.open(logged / SAMPLES / f"step_{step:08d}.png").convert("RGB"))


@pytest.mark.slow
def test_tensorboard_holds_scalars_samples_and_the_chart(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("val/bpd")] == [3, 6, 9]
    images = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert images["samples"] == images["val/L_t_against_t"] == images["val/shares"] == [3, 6, 9]
    grid = events.Images("samples")[-1]
    decoded = np.asarray(Image.open(io.BytesIO(grid.encoded_image_string)))
    assert np.array_equal(decoded, sample_grid(logged, 9))


@pytest.mark.slow
def test_mlflow_holds_one_run_with_scalars_samples_and_the_chart(logged, monkeypatch, tmp_path):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient((logged / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("nelbo")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer/max_steps"] == "6"
    assert sorted({metric.step for metric in client.get_metric_history(run_id, "val/bpd")}) == [3, 6, 9]
    for folder in ("samples", "val/L_t_against_t", "val/shares"):
        names = [artifact.path for artifact in client.list_artifacts(run_id, folder)]
        images_found = [name for name in names if name.endswith(".png")]
        assert images_found == [f"{folder}/step_{step:08d}.png" for step in (3, 6, 9)]
    path = client.download_artifacts(run_id, "samples/step_00000009.png", str(tmp_path))
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), sample_grid(logged, 9))
    stored = client.download_artifacts(run_id, "val/L_t_against_t/step_00000009.json", str(tmp_path))
    table = json.loads(Path(stored).read_text())
    assert table["columns"][:3] == ["t", "log10_t", "L_t"]
    assert table["data"][0][0] == 1


@pytest.mark.slow
def test_trackio_holds_one_run_with_scalars_samples_and_the_chart(logged):
    ended = subprocess.run(
        [sys.executable, "-c", READ_TRACKIO],
        capture_output=True,
        text=True,
        env=environment(logged.parent),
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found["names"]) == 1
    assert found["config"]["trainer"]["max_steps"] in (6, 9)
    steps = {key: [log["step"] for log in found["logs"] if key in log] for key in ("val/bpd", "samples")}
    assert steps == {"val/bpd": [3, 6, 9], "samples": [3, 6, 9]}
    last = {key: value for log in found["logs"] if log["step"] == 9 for key, value in log.items()}
    media = logged.parent / "trackio/media"
    assert last["val/L_t_against_t"]["_type"] == "trackio.image"
    assert Image.open(media / last["val/L_t_against_t"]["file_path"]).size[0] == charts.WIDTH * 2
    grid = np.asarray(Image.open(media / last["samples"]["file_path"]).convert("RGB"))
    assert np.array_equal(grid, sample_grid(logged, 9))
    assert last["val/L_t_against_t_table"]["_value"][0]["t"] == 1


@pytest.mark.slow
def test_wandb_has_a_chart_with_a_line_for_each_validation_of_the_run(logged):
    files = sorted(logged.glob("wandb/offline-run-*/files/media/table/val/L_t_by_step_table_*.json"))
    tables = [json.loads(path.read_text()) for path in files]
    table = max(tables, key=lambda table: max(row[1] for row in table["data"]))
    assert table["columns"] == ["line", "step", "t", "log10_t", "L_t", "log10_L_t"]
    assert {row[1] for row in table["data"]} == {3, 6, 9}
    assert len({row[0] for row in table["data"]}) == 3


@pytest.mark.slow
def test_a_store_of_mlflow_that_names_another_place_is_refused(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    from nelbo.training.loggers.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "run/mlflow").as_uri()
    MlflowClient(store).create_experiment("nelbo", artifact_location=(tmp_path / "elsewhere").as_uri())
    with pytest.raises(ValueError, match="outside of this folder"):
        MLflow(str(tmp_path / "run"))


@pytest.mark.slow
def test_a_server_of_mlflow_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    from nelbo.training.loggers.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(OSError, match=r"logger=mlflow: http://127.0.0.1:9: ") as raised:
        MLflow(str(tmp_path), tracking_uri="http://127.0.0.1:9")
    assert "\n" not in str(raised.value)
