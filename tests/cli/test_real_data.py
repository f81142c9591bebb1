"""MNIST and CIFAR-10, a few hundred steps on the CPU: the bound falls far below that of the start."""

import json
import os
import tarfile
from pathlib import Path

import pytest

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
