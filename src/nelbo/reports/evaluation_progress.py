"""Progress of an evaluation."""

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.units import Unit
from nelbo.progress import PlainProgress
from nelbo.reports.numbers import plus_minus


class EvaluationProgress:
    """Shows the number of evaluations and the estimate so far.

    Args:
        estimator: its rounds are counted.
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
        self._plain = PlainProgress("measuring the bound", shown and not console.is_terminal)

    def __enter__(self) -> "EvaluationProgress":
        self._progress.start()
        self._plain.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._plain.__exit__(kind, error, traceback)
        self._progress.stop()

    def show(self, total: BoundAccumulator, fresh: BoundAccumulator) -> None:
        """Update the line after a batch.

        Args:
            total: the rounds before this one.
            fresh: the measurements of this round so far.
        """
        if self._progress.disable and not self._plain.shown:
            return
        rounds = self.estimator.rounds
        measured = fresh.estimate()
        estimate = (total.estimate(rounds - 1) if rounds > 1 else measured).total
        name = f"round {rounds}" if rounds else "pilot"
        text = (
            f"{name}: {plus_minus(estimate.mean * self.unit.per_nat, estimate.stderr * self.unit.per_nat)} "
            f"{self.unit.label}, {total.num_evaluations + fresh.num_evaluations:,} evaluations"
        )
        self._progress.update(self._task, description=text)
        share = measured.num_examples / fresh.num_examples
        self._plain.text = f"{text}, {share:.0%} of the round"
