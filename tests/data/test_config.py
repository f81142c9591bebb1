"""Every file of ``conf/data`` is one class, with all of its arguments and no others."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from nelbo.data import DataModule

FILES = sorted((Path(__file__).parents[2] / "conf/data").glob("*.yaml"))


def read(path):
    config = OmegaConf.load(path)
    defaults = config.pop("defaults", [])
    return OmegaConf.create({"seed": 5, "data": config}).data, defaults


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_lists_exactly_the_arguments_and_their_defaults(path, monkeypatch, arguments_of):
    monkeypatch.delenv("NELBO_DATA", raising=False)
    config, _ = read(path)
    arguments = arguments_of(hydra.utils.get_class(config._target_))
    listed = OmegaConf.to_container(config, resolve=True)
    assert listed.pop("_target_").startswith(f"nelbo.data.{path.stem}.")
    assert listed == arguments | {"seed": 5}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_makes_a_data_module(path):
    data = hydra.utils.instantiate(read(path)[0])
    assert isinstance(data, DataModule)
    assert data.seed == 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_in_one_line_what_it_is(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_means_from_the_command_line_are_parsed():
    config, _ = read(next(path for path in FILES if path.stem == "gaussian_mixture"))
    config.means = [[0, 0], [1.5, 2]]
    config.weights = [1, 3]
    data = hydra.utils.instantiate(config)
    assert data.means.tolist() == [[0, 0], [1.5, 2]]
    assert data.weights.tolist() == [0.25, 0.75]
