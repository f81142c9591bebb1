"""MNIST and CIFAR-10, a few hundred steps on the CPU: the bound falls far below that of the start."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from nelbo.data.mnist import _read_idx

DATA = os.environ.get("NELBO_DATA", "")
SMALL = (
    "schedule.num_steps=100",
    "model=unet_tiny",
    "model.channels=16",
    "model.channel_mult=[1,2]",
    "model.num_res_blocks=1",
    "model.attention_resolutions=[]",
    "data.batch_size=32",
    "data.eval_batch_size=512",
    "trainer.max_steps=200",
    "trainer.val_check_interval=200",
    "lr_schedule.warmup_steps=20",
    "val_estimator.evaluations_per_example=3",
    "estimator@test_estimator=stratified",
    "test_estimator.evaluations_per_example=3",
    "callbacks.samples=null",
    "logger=none",
)


def train(run_in_process, folder: Path, *options: str) -> dict:
    assert run_in_process("train", *options, *SMALL, folder=folder) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["step"] == 200
    return summary


def need(file: str) -> Path:
    if not DATA or not Path(DATA, file).exists():
        pytest.skip(f"NELBO_DATA names no folder with {file}")
    return Path(DATA, file)


@pytest.mark.slow
def test_mnist_trains_and_evaluates(run_in_process, tmp_path):
    need("MNIST")
    summary = train(run_in_process, tmp_path, "data=mnist", f"data.root={DATA}", "data.download=false")
    assert 0.1 < summary["test/bpd"] < 4.0  # 8 bits/dim is to know nothing


@pytest.mark.slow
def test_cifar10_as_a_folder_of_images(run_in_process, tmp_path):
    """Some of the images, which are JPEG and so easier than the published ones."""
    images = tmp_path / "images"
    with tarfile.open(need("cifar10-jpeg.tar.xz"), "r|xz") as archive:
        for member in archive:
            if member.isfile() and int(Path(member.name).stem) < 150:
                archive.extract(member, images, filter="data")
    root = f"data.root={images}"
    summary = train(run_in_process, tmp_path / "run", "data=image_folder", root, "data.size=32")
    assert 1.0 < summary["test/bpd"] < 6.5


@pytest.mark.slow
def test_mnist_in_parquet_files_is_split_and_measured_as_mnist(run_in_process, tmp_path, monkeypatch):
    """Metrics of a short training are equal to the last digit."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = need("MNIST/raw")
    names = datasets.ClassLabel(names=list("0123456789"))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    (tmp_path / "parquet").mkdir()
    for split, official in {"train": "train", "test": "t10k"}.items():
        images = []
        for pixels in _read_idx(folder, f"{official}-images-idx3-ubyte").numpy():
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        columns = {"image": images, "label": _read_idx(folder, f"{official}-labels-idx1-ubyte").tolist()}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(tmp_path / f"parquet/{split}.parquet")
    short = ("trainer.max_steps=10", "trainer.val_check_interval=10", "max_examples.val=100",
             "max_examples.test=100", "conditional=true", "trainer.log_every_n_steps=2")  # fmt: skip
    parquet = ("data=hf_dataset", f"data.root={tmp_path / 'parquet'}", "data.label=label", "data.parts=12")
    metrics = []
    for name, source in {"mnist": ("data=mnist", f"data.root={DATA}"), "parquet": parquet}.items():
        assert run_in_process("train", *source, *SMALL, *short, folder=tmp_path / name) == 0
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        metrics.append({key: value for key, value in summary.items() if key.startswith(("test/", "val/"))})
    assert "test/bpd" in metrics[0]
    assert metrics[0] == metrics[1]
    for file in ("bound.parquet", "examples.parquet"):
        assert (tmp_path / "mnist" / file).read_bytes() == (tmp_path / "parquet" / file).read_bytes()
