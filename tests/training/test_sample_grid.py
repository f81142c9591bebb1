"""The chain of the grid of samples."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from nelbo.data.spec import DataSpec
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import GaussianDecoder
from nelbo.diffusion.exact import gaussian_denoiser
from nelbo.diffusion.samplers import DDIM
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.spacings import Even, Quadratic, Trailing
from nelbo.diffusion.variances import FixedSmall
from nelbo.runs import images
from nelbo.training.callbacks import SampleGrid

SHAPE = (1, 2, 2)


def visited(spacing, steps, T=20):
    """The timesteps of the network calls, in increasing order."""
    seen, exact = [], gaussian_denoiser(SHAPE, 0.5, FixedSmall())

    def denoiser(xt, level, cond):
        seen.append(int(level.t[0]))
        return exact(xt, level)

    module = SimpleNamespace(
        bound=VariationalBound(Chain(CosineSchedule(T)), GaussianDecoder()),
        denoiser=denoiser,
        device=torch.device("cpu"),
        conditional=False,
    )
    spec = DataSpec(SHAPE, levels=None, num_classes=None)
    grid = SampleGrid(DDIM(steps=steps), spacing, spec, run_dir="unused", num_samples=4)
    assert grid.sample(module).shape == (4, *SHAPE)
    return seen[::-1]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [(Trailing(), [5, 10, 15, 20]), (Even(), [1, 7, 14, 20]), (Quadratic(), [1, 3, 9, 20])],
    ids=["trailing", "even", "quadratic"],
)
def test_the_spacing_chooses_the_steps(spacing, expected):
    assert visited(spacing, 4) == expected


@pytest.mark.parametrize("steps", [None, 20, 50])
def test_all_timesteps_are_used_if_there_are_fewer_than_steps(steps):
    assert visited(Trailing(), steps) == list(range(1, 21))


def test_an_image_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """Reports read the folder of samples while a run writes it."""
    image = images.grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    images.save_png(tmp_path / "a.png", image)
    assert images.from_file(tmp_path / "a.png").shape[1:] == image.size[::-1]
    images.save_gif(tmp_path / "a.gif", [torch.zeros(4, 1, 8, 8, dtype=torch.uint8)] * 3)

    def interrupted(image, file, **options):
        Path(file).write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    for name in ("b.png", "a.png"):
        with pytest.raises(KeyboardInterrupt):
            images.save_png(tmp_path / name, image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.png"]
    assert images.from_file(tmp_path / "a.png").shape[1:] == image.size[::-1]
