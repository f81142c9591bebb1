"""A quoted string reaches the configuration as it was."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nelbo.app.quoting import quoted


@given(st.text(alphabet="ab\\'\"${}=, /", max_size=12))
@example("a\\b")
@example("a\\'b")
@example("a\\")
@example("${now:%Y}")
def test_it_is_read_back(text):
    value = OverridesParser.create().parse_override(f"key={quoted(text)}").value()
    assert OmegaConf.create({"key": value}).key == text
