"""The components alone, and together in a short training."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nelbo.diffusion.contracts import check_schedule

from my_project.data import Stripes
from my_project.network import SmallDiT
from my_project.schedule import ShiftedCosine

PROJECT = Path(__file__).parents[1]


def test_a_larger_image_gets_more_noise():
    u = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    small, large = ShiftedCosine(size=32).logsnr(u), ShiftedCosine(size=64).logsnr(u)
    assert (small.diff() < 0).all()
    assert (small > large).all()


@pytest.mark.parametrize("num_steps", [100, None])
def test_the_noise_levels_of_the_schedule_are_a_chain(num_steps):
    check_schedule(ShiftedCosine(num_steps, size=8))


def test_the_ends_of_continuous_time_are_those_of_the_paper():
    u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    logsnr = ShiftedCosine(num_steps=None, logsnr_max="paper").level(u).logsnr
    torch.testing.assert_close(logsnr, torch.tensor([15.0, -15.0], dtype=torch.float64))


def test_the_network_is_zero_before_training_and_keeps_the_shape():
    network = SmallDiT((1, 8, 8), out_channels=2, num_classes=2, patch=2, width=16, depth=1, heads=2)
    output = network(torch.randn(3, 1, 8, 8), torch.rand(3), torch.tensor([0, 1, 0]))
    assert output.shape == (3, 2, 8, 8)
    assert (output == 0).all()


def test_the_images_are_constant_along_their_stripes():
    data = Stripes(n_train=20)
    images, labels = data.split("train").fetch(torch.arange(20), epoch=0)[:2]
    assert labels is not None
    for image, label in zip(images[:, 0], labels, strict=True):
        rows_first = image if label == 0 else image.T
        assert (rows_first == rows_first[:, :1]).all()


def test_the_experiment_trains(tmp_path):
    options = ("trainer.max_steps=2", "trainer.val_check_interval=2", "logger=none", "sampler.steps=2")
    command = [sys.executable, "-m", "nelbo", "train", "--config-dir", "conf", "experiment=stripes"]
    command += [*options, f"hydra.run.dir={tmp_path}"]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "summary.json").exists()
