"""``python evaluate.py baselines=true``: the size of the same images in lossless formats."""

import json

import pytest
import torch

from nelbo.data.digits import Digits
from nelbo.evaluation.image_codecs import coded_sizes

QUICK = ("estimator=stratified", "estimator.evaluations_per_example=4", "max_examples=6")


def test_baselines_are_those_of_the_measured_images(evaluate, finished_run):
    checkpoint = finished_run.folder / "checkpoints/last.ckpt"
    ended = evaluate(f"checkpoint={checkpoint}", *QUICK, "baselines=true")
    assert ended.code == 0, ended.err
    found = json.loads((ended.folder / "evaluation.json").read_text())["baselines"]
    data = Digits()
    data.subset("test", 6)
    expected = coded_sizes(data.split("test").fetch(torch.arange(6), 0).x0)
    assert list(found) == ["png", "webp", "jxl"]
    for name, size in expected.items():
        assert found[name]["bits_per_dim"] == pytest.approx(size.single)
        assert found[name]["mosaic_bits_per_dim"] == pytest.approx(size.mosaic)
        assert found[name].get("missing") == size.missing
    assert "lossless formats, bits/dim, of the same images" in " ".join(ended.out.split())
    assert "Lossless image formats" in (ended.folder / "report.html").read_text()
