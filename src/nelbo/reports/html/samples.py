"""Grids of samples over training, inside the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nelbo.atomic_file import read_bytes
from nelbo.reports.html.entry import Entry
from nelbo.runs.images import evenly_spaced

MOST_IMAGES = 24  # of all runs together
MOST_BYTES = 64 * 2**20  # of one image


@dataclass(frozen=True)
class Image:
    """A PNG file as a data URI."""

    step: int
    uri: str


@dataclass(frozen=True)
class Strip:
    """The grids of one run, spread evenly over training."""

    entry: Entry
    images: tuple[Image, ...]
    of: int


def strips(entries: Sequence[Entry]) -> list[Strip]:
    """The grids of every run that has any."""
    each = max(2, MOST_IMAGES // len(entries))
    return [
        Strip(
            entry,
            tuple(
                Image(step, _uri(entry.run.samples[step]))
                for step in evenly_spaced(list(entry.run.samples), each)
            ),
            len(entry.run.samples),
        )
        for entry in entries
        if entry.run.samples
    ]


def _uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(read_bytes(path, MOST_BYTES)).decode()
