"""What is printed to a terminal that cannot show it."""

import io
import sys

from nelbo.cli.logging import replace_unprintable


def test_unprintable_characters_do_not_raise(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    replace_unprintable()
    print("1.25 ± 0.01", flush=True)
    assert written.getvalue() == b"1.25 ? 0.01\n"
