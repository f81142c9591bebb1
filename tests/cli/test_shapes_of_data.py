"""Data of every shape is trained on, evaluated, sampled and reported by the commands."""

import json
import math

import numpy as np
import pytest

RNG = np.random.default_rng(0)
UNET = ("model=unet_tiny", "model.channels=16", "model.num_heads=1")
KINDS = {
    "series": (RNG.normal(size=(400, 2, 32)).astype(np.float32), (*UNET, "decoder=gaussian")),
    "volumes": (RNG.integers(0, 256, (400, 1, 8, 8, 8), np.uint8), UNET),
    "vectors": (
        RNG.normal(size=(400, 5)),
        ("model=mlp", "model.width=16", "model.depth=1", "decoder=gaussian"),
    ),
    "images that are not square": (
        RNG.integers(0, 256, (400, 3, 8, 12), np.uint8),
        (*UNET, "data.flip=true"),
    ),
    "images of 16x16 by the default network": (RNG.integers(0, 256, (400, 1, 16, 16), np.uint8), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_any_shape_is_trained_evaluated_sampled_and_reported(kind, tiny, command, evaluate, tmp_path):
    values, options = KINDS[kind]
    np.save(tmp_path / "images.npy", values)
    source = ("data=array", f"data.root={tmp_path}", "data.batch_size=32")
    settings = [option for option in tiny if not option.startswith(("model", "data"))]
    trained = command(*source, *options, *settings, "logger=none")
    assert trained.code == 0, trained.err
    drawn = kind != "vectors"
    assert bool(list((trained.folder / "samples").glob("*.png"))) == drawn
    checkpoint = f"checkpoint={trained.folder / 'checkpoints/last.ckpt'}"
    measured = evaluate(checkpoint, "estimator=stratified", "estimator.evaluations_per_example=3")
    assert measured.code == 0, measured.err
    result = json.loads((measured.folder / "evaluation.json").read_text())
    continuous = values.dtype.kind == "f"
    assert math.isfinite(result["test/nelbo" if continuous else "test/bpd"])
    few = (checkpoint, "n=4", "sampler.steps=2")
    sampled = command(*few, "trajectory=strip", name="sample", folder=tmp_path / "drawn")
    if not drawn:
        assert sampled.code == 1
        assert "trajectory=strip draws the samples, and data of shape (5,) is not drawn" in sampled.err
        sampled = command(*few, name="sample", folder=tmp_path / "drawn")
    assert sampled.code == 0, sampled.err
    pictures = {path.name for path in (tmp_path / "drawn").glob("*.png")}
    assert pictures == ({"grid.png", "trajectory.png"} if drawn else set())
    for folder, ran in ((trained.folder, trained), (measured.folder, measured)):
        assert (folder / "report.html").stat().st_size > 10_000
        assert ran.err.lower().count("warn") <= 1, ran.err
