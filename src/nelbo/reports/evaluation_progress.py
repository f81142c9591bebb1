"""Progress of an evaluation."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.units import Unit
from nelbo.progress import PlainProgress
from nelbo.reports.numbers import plus_minus


@contextmanager
def evaluation_progress(
    estimator: BoundEstimator, unit: Unit, shown: bool = True
) -> Iterator[Callable[[BoundAccumulator, BoundAccumulator], None]]:
    """Show the number of evaluations and the estimate so far. On Ctrl-C, say that nothing is saved.

    Args:
        estimator: its rounds are counted.
        unit: of the estimate.
        shown: whether this process shows it.

    Yields:
        A function to call after a batch, with the rounds before this one and the measurements of this round.
    """
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = not (shown and console.is_terminal)
    what = "measuring the bound"
    with (
        Progress(*columns, console=console, transient=True, disable=hidden) as progress,
        PlainProgress(what, shown and not console.is_terminal) as plain,
    ):
        task = progress.add_task(what)

        def show(total: BoundAccumulator, fresh: BoundAccumulator) -> None:
            if not shown:
                return
            rounds, measured = estimator.rounds, fresh.estimate()
            estimate = (total.estimate(rounds - 1) if rounds > 1 else measured).total
            text = (
                f"{f'round {rounds}' if rounds else 'pilot'}: "
                f"{plus_minus(estimate.mean * unit.per_nat, estimate.stderr * unit.per_nat)} "
                f"{unit.label}, {total.num_evaluations + fresh.num_evaluations:,} evaluations"
            )
            progress.update(task, description=text)
            plain.text = f"{text}, {measured.num_examples / fresh.num_examples:.0%} of the round"

        try:
            yield show
        except KeyboardInterrupt:
            if shown:
                print(
                    "nothing is saved: an evaluation writes its files when it has finished", file=sys.stderr
                )
            raise
