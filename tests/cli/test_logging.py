"""What is printed to a terminal that cannot show it."""

import io
import sys
import warnings

from nelbo.cli.logging import replace_unprintable


def test_unprintable_characters_do_not_raise(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    replace_unprintable()
    print("1.25 ± 0.01", flush=True)
    assert written.getvalue() == b"1.25 ? 0.01\n"


def test_control_codes_of_a_file_in_a_warning_are_not_printed(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    replace_unprintable()
    shown = warnings.formatwarning("a\x1b[31mred\nsecond", UserWarning, "x.py", 1)
    assert shown == "warning: a\\x1b[31mred\nsecond\n"
