"""Lines that follow what takes long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.tally import BoundTally
from nelbo.evaluation.units import Unit


class EvaluationProgress:
    """Shows the evaluations so far and a running estimate; nothing where there is no terminal.

    Args:
        estimator: whose rounds are followed.
        unit: of the estimate.
        shown: whether this process shows it.
    """

    def __init__(self, estimator: BoundEstimator, unit: Unit, shown: bool = True) -> None:
        self.estimator = estimator
        self.unit = unit
        console = Console()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._progress.add_task("measuring the bound")

    def __enter__(self) -> "EvaluationProgress":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, total: BoundTally, fresh: BoundTally) -> None:
        """Update the line after a batch.

        Args:
            total: the rounds before this one.
            fresh: what this round has measured so far.
        """
        if self._progress.disable:
            return
        rounds = self.estimator.rounds
        estimate = (total.estimate(rounds - 1) if rounds > 1 else fresh.estimate()).total
        name = f"round {rounds}" if rounds else "pilot"
        self._progress.update(
            self._task,
            description=f"{name}   {estimate.mean * self.unit.per_nat:.4f} "
            f"± {estimate.stderr * self.unit.per_nat:.4f} {self.unit.label}   "
            f"{total.num_evaluations + fresh.num_evaluations:,} network evaluations",
        )


@contextmanager
def counted(what: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar for work whose end is known; nothing where there is no terminal.

    Args:
        what: is done.
        shown: whether this process shows it.

    Yields:
        What is to be called with (done, of how many).
    """
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)
