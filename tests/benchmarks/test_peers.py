"""The same network gives the same output through the wrapper, and missing libraries are named in one line."""

import importlib.metadata

import pytest
import torch

from benchmarks import peers
from nelbo.models import MLP


def test_missing_libraries_are_named(monkeypatch):
    def version(name: str) -> str:
        if name == "azula":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit, match=r"not installed: azula; pip install 'nelbo\[peers\]'"):
        peers.versions()


def test_the_wrapped_network_accepts_one_level_for_all_images():
    network = MLP((1, 8, 8), 1, width=16, depth=1, dropout=0.0)
    wrapped, x = peers.Network(network, 1), torch.randn(3, 1, 8, 8)
    assert torch.equal(wrapped(x, torch.tensor(7)), network(x, torch.full((3,), 7.0), None))
