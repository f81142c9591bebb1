"""Progress of work that takes long: a bar in a terminal, a plain line from time to time elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS = 30.0  # between two plain lines

ReportProgress = Callable[[int, int], None]  # receives (done, of how many)


class PlainProgress:
    """Prints a line every 30 seconds, however long one step of the work takes. For output without a terminal.

    Args:
        text: what is done. Assign to :attr:`text` to say how far it is.
        shown: whether this process prints.
    """

    def __init__(self, text: str, shown: bool = True) -> None:
        self.text = text
        self.shown = shown
        self._ended = threading.Event()
        self._started = time.monotonic()

    def __enter__(self) -> "PlainProgress":
        if self.shown:
            threading.Thread(target=self._print, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()

    def _print(self) -> None:
        while not self._ended.wait(SECONDS):
            print(f"{self.text}, {time.monotonic() - self._started:.0f} s", flush=True)


@contextmanager
def counted(what: str, shown: bool = True) -> Iterator[ReportProgress]:
    """A bar for work whose end is known.

    Args:
        what: is done.
        shown: whether this process shows it.

    Yields:
        What is to be called with (done, of how many).
    """
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with (
        Progress(*columns, console=console, transient=True, disable=hidden) as progress,
        PlainProgress(what, shown and not console.is_terminal) as plain,
    ):
        task = progress.add_task(what)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            plain.text = f"{what}: {done / total:.0%}"

        yield update
