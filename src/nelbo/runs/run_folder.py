"""Read the folder of a training run, or of an evaluation of a trained model."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import ConfigDict, Field, create_model
from torch import Tensor

from nelbo.atomic_file import MAX_YAML_BYTES, open_regular, read_bytes, read_json, read_yaml
from nelbo.data import DataRecord, DataSpec
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.ledger import Ledger
from nelbo.evaluation.step_table import StepTable
from nelbo.evaluation.units import Unit, unit_of
from nelbo.runs import bound_table, example_table, likelihood_table, metrics_file
from nelbo.runs.example_table import Examples, t_bin_columns
from nelbo.runs.files import RunFolderError, check_contained, read_if_there
from nelbo.runs.metrics_file import METRICS_FILE, Series
from nelbo.runs.paths import CONFIG, DATA, EVALUATION, LAST, OVERRIDES, SAMPLES, SUMMARY, SWEEP
from nelbo.runs.run_options import typed_options
from nelbo.runs.summary import check_files
from nelbo.text import json_to_validate

METRICS, TERMS = METRICS_FILE, bound_table.FILE_NAME
# files and folders that are read here
BELOW = (f"*/{CONFIG}", f"*/*/{CONFIG}", f"*/*/*/{CONFIG}")  # runs in a folder that is no run
EXAMPLES, LIKELIHOODS = example_table.FILE_NAME, likelihood_table.FILE_NAME
TERMS_PARTS = bound_table.parts_folder(Path(TERMS)).name
FILES = (".hydra", SAMPLES, DATA, SUMMARY, EVALUATION, METRICS, TERMS, TERMS_PARTS, EXAMPLES, LIKELIHOODS)
PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of such a file
# the types of what a ledger has; a number that is not finite is null
_TYPES: dict[str, Any] = {name: (kind | None, None) for name, kind in get_type_hints(Ledger).items()}
_TYPES["weights"] = (Annotated[str | None, Field(pattern=r"^(raw|ema|ema_0\.\d+)$")], None)
_LEDGER = create_model("Ledger", __config__=ConfigDict(strict=True), **_TYPES)
# what is shown of a likelihood besides the bound
_NUMBERS = (
    "nats", "nats_stderr", "nats_stderr_monte_carlo", "difference", "difference_stderr",
    "lower", "lower_stderr", "gap", "gap_stderr",
)  # fmt: skip
_LIKELIHOOD_TYPES: dict[str, Any] = {"label": (str, ...), "ledger": (dict[str, Any], ...)}
_LIKELIHOOD_TYPES |= dict.fromkeys(_NUMBERS, (float | None, None))
_LIKELIHOOD = create_model("Likelihood", __config__=ConfigDict(strict=True), **_LIKELIHOOD_TYPES)
_BASELINE = create_model(
    "Baseline",
    __config__=ConfigDict(strict=True),
    label=(str, ...),
    bits_per_dim=(float | None, None),
    mosaic_bits_per_dim=(float | None, None),
    missing=(str | None, None),
)
_WITH_LIKELIHOODS = ("likelihoods", "on_samples")  # on the examples of the bound, on samples of the model
SPLITS = ("test", "val", "train")  # the best to judge a run by first


@dataclass(frozen=True)
class RunLikelihood:
    """A likelihood of an evaluation besides its bound.

    Attributes:
        row: of ``evaluation.json``.
        unit: of the bound.
        examples: (N,) -log p of each example, nats; None without the file.
    """

    row: Mapping[str, Any]
    unit: Unit
    examples: Tensor | None

    @property
    def ledger(self) -> dict[str, Any]:
        """What it depends on besides the network."""
        return self.row["ledger"]

    @property
    def total(self) -> Estimate:
        """-log p in the unit of the bound; NaN where it is not known."""
        value, error = (self.row.get(name) for name in ("nats", "nats_stderr"))
        return Estimate(
            *(math.nan if number is None else number * self.unit.per_nat for number in (value, error))
        )


@dataclass(frozen=True)
class Run:
    """A run's files, read.

    Attributes:
        path: the folder.
        is_evaluation: whether a model was measured here, and not trained.
        config: that the model was trained with, as plain values; a run's own has interpolations as they
            were written.
        config_text: the same, as a person wrote it.
        options: as they were typed, by name; those of an evaluation do not describe its model.
        data: spec of the data that the run is trained on; None without the file.
        summary: ``summary.json`` or ``evaluation.json``; empty while the run is not finished.
        metrics: every column of ``metrics.csv``.
        step_tables: of ``bound.parquet``, by split and step of the measurement, steps in order.
        samples: grids by step, in order.
    """

    path: Path
    is_evaluation: bool
    config: dict[str, Any]
    config_text: str
    options: dict[str, str]
    data: DataSpec | None
    summary: dict[str, Any]
    metrics: dict[str, Series]
    step_tables: dict[str, dict[int, StepTable]]
    samples: dict[int, Path]

    @property
    def ledger(self) -> dict[str, Any]:
        """What the bound measured; empty while it is not known."""
        return self.summary.get("ledger", {})

    @property
    def is_discrete(self) -> bool:
        """Whether the bound is a code length in bits/dim, and not that of a density, in nats."""
        return not any(name.endswith("/nelbo") for name in (*self.metrics, *self.summary))

    @property
    def held_out(self) -> str | None:
        """The best split there is to judge the run by: ``test``, else ``val``, else ``train``."""
        total = self.unit.metric
        return next((split for split in SPLITS if self.final(f"{split}/{total}") is not None), None)

    @cached_property
    def unit(self) -> Unit:
        """Unit of the results: from the ledger, or the data of a run that is not finished; else nats."""
        if "dims" in self.ledger:
            return unit_of(self.ledger["dims"], self.ledger["levels"])
        if self.data is not None:
            return unit_of(self.data.dims, self.data.levels)
        return Unit(metric="bpd" if self.is_discrete else "nelbo", label="nats", per_nat=1.0)

    def final(self, metric: str) -> float | None:
        """The last value of a metric, None if there is none."""
        if metric in self.summary:
            return float(self.summary[metric])
        series = self.metrics.get(metric)
        return None if series is None else float(series.values[-1])

    def part(self, name: str) -> Estimate:
        """A part of the bound of the best split, in the unit of the bound; NaN where it is not known."""
        value, error = (self.final(f"{self.held_out}/{name}{end}") for end in ("", "_stderr"))
        return Estimate(math.nan if value is None else value, math.nan if error is None else error)

    def shares(self, split: str | None) -> dict[str, float]:
        """Shares of the bound in L_0, the bins of t and L_T; empty where they were not measured."""
        prefix = f"{split}/share/"
        logged = (*self.summary, *self.metrics)
        names = share_names(name.removeprefix(prefix) for name in logged if name.startswith(prefix))
        return {name: self.final(prefix + name) or 0.0 for name in names}

    def best_validation(self) -> tuple[float, float | None] | None:
        """The lowest bound of the validation split and its error, None where it was never measured."""
        series, errors = (self.metrics.get(f"val/{self.unit.metric}{end}") for end in ("", "_stderr"))
        if series is None:
            return None
        best = int(series.values.argmin())
        value = float(series.values[best])
        if errors is None or len(errors.values) != len(series.values):
            return value, None
        return value, float(errors.values[best])

    def last_step_table(self, split: str) -> StepTable | None:
        """The step table of the last measurement of a split; None if there is none."""
        measured = self.step_tables.get(split)
        return measured[max(measured)] if measured else None

    def best_step_table(self) -> tuple[str, StepTable] | None:
        """The best split to judge the run by that has a step table, and its last one."""
        tables = ((split, self.last_step_table(split)) for split in SPLITS)
        return next(((split, table) for split, table in tables if table is not None), None)

    @cached_property
    def examples(self) -> Examples | None:
        """The bound of every example; None for a run without this file.

        Raises:
            RunFolderError: when the file is damaged, or has another number of examples than the ledger.
        """
        examples = read_if_there(self.path / EXAMPLES, example_table.read)
        if examples is not None:
            self._check_length(EXAMPLES, examples.columns["L_0"])
        return examples

    @cached_property
    def likelihoods(self) -> dict[str, RunLikelihood]:
        """The likelihoods besides the bound on the same examples, by name.

        Raises:
            RunFolderError: when the file of their examples is damaged, or has another number of examples than
                the ledger.
        """
        columns = read_if_there(self.path / LIKELIHOODS, likelihood_table.read) or {}
        for column in columns.values():
            self._check_length(LIKELIHOODS, column)
        rows = self.summary.get("likelihoods", {})
        return {name: RunLikelihood(row, self.unit, columns.get(name)) for name, row in rows.items()}

    def _check_length(self, name: str, column: Tensor) -> None:
        expected = self.ledger.get("num_examples")
        if expected is not None and len(column) != expected:
            raise RunFolderError(
                f"{self.path / name}: it has {len(column)} examples, and the ledger {expected}"
            )

    def prior(self, split: str) -> float:
        """L_T in nats; 0 where it is not known."""
        return (self.final(f"{split}/L_T") or 0.0) / self.unit.per_nat


def share_names(names: Iterable[str]) -> list[str]:
    """The names of shares among names: L_0, the bins of t from clean to noisy, L_T."""
    found = set(names)
    return [*({"L_0"} & found), *t_bin_columns(found), *({"L_T"} & found)]


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Folders of runs, each once: those given, and in place of a folder of runs the runs in it.

    A folder of runs is that of a sweep, or one without results and runs up to three levels below it. Files
    are ignored, so that ``multirun/<date>/<time>/*`` may be given.

    Raises:
        RunFolderError: for a checkpoint.
    """
    found: dict[Path, None] = {}
    for path in (path.resolve() for path in paths if not path.is_file() or path.suffix == ".ckpt"):
        if path.is_file():
            run = f", such as {path.parents[1]}" if path.parent.name == Path(LAST).parent.name else ""
            raise RunFolderError(f"{path} is a checkpoint: expected the folder of a run{run}")
        patterns = BELOW[:1] if (path / SWEEP).is_file() else () if is_run_folder(path) else BELOW
        below = [config.parents[1] for pattern in patterns for config in path.glob(pattern)]
        found |= dict.fromkeys(sorted(below, key=lambda folder: (len(str(folder)), folder)) or [path])
    return list(found)


def is_run_folder(path: Path) -> bool:
    """Whether a folder has the configuration or the results of a run."""
    return any((path / name).is_file() for name in (CONFIG, *FILES))


def read_run(path: Path) -> Run:
    """Read a run's folder.

    Raises:
        RunFolderError: when there is no run in it, or one of its files is broken.
    """
    if not path.is_dir():
        raise RunFolderError(f"{path}: there is no such folder")
    check_contained(path, FILES)
    if not any((path / name).is_file() for name in (SUMMARY, EVALUATION, METRICS, TERMS)):
        expected = f"{SUMMARY}, {EVALUATION}, {METRICS} or {TERMS}"
        raise RunFolderError(f"{path}: not the folder of a run: there is no {expected} in it")
    evaluation = read_if_there(path / EVALUATION, _json)
    summary = read_if_there(path / SUMMARY, _json) or evaluation or {}
    config = read_if_there(path / CONFIG, _yaml) or {}
    text = read_if_there(path / CONFIG, _text) or ""
    if "config" in summary:  # an evaluation's own says nothing of the model
        config = _mapping(summary["config"])
        text = yaml.safe_dump(config, sort_keys=False)
    check_files(path, summary)
    ledger = summary.get("ledger", {})
    run = Run(
        path=path,
        is_evaluation=evaluation is not None,
        config=config,
        config_text=text,
        options=read_if_there(path / OVERRIDES, lambda _: typed_options(path)) or {},
        data=read_if_there(path / DATA, lambda file: DataRecord.from_dict(read_json(file)).spec),
        summary=summary,
        metrics=read_if_there(path / METRICS, metrics_file.read) or {},
        step_tables=read_if_there(path / TERMS, lambda file: bound_table.read(file, ledger)) or {},
        samples=dict(map(_sample, sorted((path / SAMPLES).glob("step_*.png")))),
    )
    _ = run.examples, run.likelihoods
    try:
        _ = run.unit, run.held_out, run.best_validation()  # of damaged values these can raise anything
    except Exception as error:
        raise RunFolderError(f"{path}: its results cannot be read ({error})") from error
    return run


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[RunFolderError]]:
    """Read the folders that can be read, in their order, and what is wrong with the others.

    Args:
        paths: of :func:`run_folders`.

    Raises:
        RunFolderError: when none of them can be read.
    """
    runs, problems = [], []
    for path in paths:
        try:
            if path.is_symlink():  # a job of a sweep: links on the command line are resolved
                raise RunFolderError(f"{path} is a link: name the folder {path.resolve()} to read it")
            runs.append(read_run(path))
        except RunFolderError as error:
            problems.append(error)
    if not runs:
        raise problems[0]
    return runs, problems


def _sample(path: Path) -> tuple[int, Path]:
    """The step of an image of samples, and its path."""
    step = path.stem.removeprefix("step_")
    with open_regular(path) as file:
        is_png = file.read(len(PNG)) == PNG
    if not step.isdecimal() or not is_png:
        raise RunFolderError(f"{path}: not an image of samples (step_<number>.png)")
    return int(step), path


def _text(path: Path) -> str:
    return read_bytes(path, MAX_YAML_BYTES).decode("utf-8")


def _yaml(path: Path) -> dict[str, Any]:
    return _mapping(read_yaml(path))


def _json(path: Path) -> dict[str, Any]:
    content = _without_unknown(read_json(path))
    for part in ("ledger", "config", "variances", "baselines", *_WITH_LIKELIHOODS):
        _mapping(content.get(part, {}))
    _LEDGER.model_validate_json(json_to_validate(content.get("ledger", {})))
    for likelihood in (row for part in _WITH_LIKELIHOODS for row in content.get(part, {}).values()):
        _LIKELIHOOD.model_validate_json(json_to_validate(likelihood))
    for baseline in content.get("baselines", {}).values():
        _BASELINE.model_validate_json(json_to_validate(baseline))
    if "variances" in content:
        content["variances"] = {name: _without_unknown(f) for name, f in content["variances"].items()}
    numbers = [name for name in content if "/" in name or name in ("step", "train_seconds")]
    wrong = [name for name in numbers if not isinstance(content[name], int | float)]
    if wrong:
        raise ValueError(f"{wrong[0]} is not a number")
    return content


def _without_unknown(content: dict[str, Any]) -> dict[str, Any]:
    """Without metrics that are null: an error of a single example, a mean that is not finite."""
    return {key: value for key, value in content.items() if value is not None or "/" not in key}


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("expected keys and values")
    return content
