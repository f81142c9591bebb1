"""Every file of the groups that configure the mathematics is one class and lists all of its arguments."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("schedule", "parameterization", "variance", "decoder", "loss", "timesteps", "sampler")
FILES = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
# what a file cannot know: it comes from the data or from the chain
SUPPLIED = {"schedule": {"half_bin"}, "decoder": {"levels"}, "timesteps": {"num_steps"}}


def test_the_groups_are_not_empty():
    assert {path.parent.name for path in FILES} == set(GROUPS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_lists_exactly_the_arguments_of_its_class(path):
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("_target_").rpartition(".")
    assert module.endswith(f".{path.stem}")
    config.pop("defaults", None)
    cls = getattr(importlib.import_module(module), name)
    assert config.keys() == inspect.signature(cls).parameters.keys() - SUPPLIED.get(path.parent.name, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_says_in_one_line_what_it_is(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
