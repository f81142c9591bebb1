"""A quoted string reaches the configuration as it was."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nelbo.cli.overrides import as_typed, quoted, value_of


@given(st.text(alphabet="ab\\'\"${}=, /", max_size=12))
@example("a\\b")
@example("a\\'b")
@example("a\\")
@example("${now:%Y}")
def test_quoted_string_is_parsed_back(text):
    value = OverridesParser.create().parse_override(f"key={quoted(text)}").value()
    assert OmegaConf.create({"key": value}).key == text


@pytest.mark.parametrize("text", ["outputs/a", "a b", "lr=4", "экс/日本", "we(ir)d,[x]", "it's", "${x}"])
def test_shown_option_is_parsed_by_a_shell(text):
    (word,) = shlex.split(as_typed("resume", text))
    assert value_of([word], "resume") == text


def test_unparsable_value_is_returned_unchanged():
    assert value_of(["resume=/tmp/lr=4"], "resume") == "/tmp/lr=4"
    assert value_of(["resume=null"], "resume") is None
    assert value_of(["resume="], "resume") == ""


def test_interpolated_value_is_returned_unresolved():
    assert value_of(["hydra.run.dir=runs/${unheard_of:%H}"], "hydra.run.dir") == "runs/${unheard_of:%H}"
