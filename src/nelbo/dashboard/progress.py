"""A line that follows an evaluation."""

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nelbo.evaluation.estimators import BoundEstimator
from nelbo.evaluation.tally import BoundTally
from nelbo.evaluation.units import Unit


class EvaluationProgress:
    """Shows the evaluations so far and a running estimate; nothing where there is no terminal.

    Args:
        estimator: whose rounds are followed.
        unit: of the estimate.
    """

    def __init__(self, estimator: BoundEstimator, unit: Unit) -> None:
        self.estimator = estimator
        self.unit = unit
        console = Console()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
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

    def show(self, tally: BoundTally) -> None:
        """Update the line after a batch."""
        if self._progress.disable:
            return
        total = tally.estimate(max(self.estimator.rounds, 1)).total
        self._progress.update(
            self._task,
            description=f"round {self.estimator.rounds}   {total.mean * self.unit.per_nat:.4f} "
            f"± {total.stderr * self.unit.per_nat:.4f} {self.unit.label}",
        )
