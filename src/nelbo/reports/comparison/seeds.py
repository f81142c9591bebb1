"""Runs that differ in their seed alone, as one group: mean, spread over seeds, and error within a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nelbo.evaluation.ledger import MUST_AGREE
from nelbo.evaluation.seeds import SeedEstimate
from nelbo.evaluation.units import PARTS
from nelbo.reports.comparison.choices import MEASURED, comparable_options, differing
from nelbo.reports.comparison.difference import difference
from nelbo.reports.comparison.named_run import NamedRun
from nelbo.runs.run_folder import Run

SEED = "seed"


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed alone.

    Attributes:
        name: the options in which the groups differ, or the seeds where they differ in none.
        choices: these options.
        runs: in the order of their seeds.
        seeds: of the runs.
    """

    name: str
    choices: Mapping[str, str]
    runs: tuple[NamedRun, ...]
    seeds: tuple[int, ...]

    @property
    def first(self) -> Run:
        """The run of the lowest seed."""
        return self.runs[0].run

    def part(self, name: str) -> SeedEstimate:
        """A part of the bound of the best split, or its total (the metric of the unit)."""
        return SeedEstimate.of([named.run.part(name) for named in self.runs])

    @property
    def total(self) -> SeedEstimate:
        """The bound of the best split."""
        return self.part(self.first.unit.metric)

    @property
    def likelihoods(self) -> dict[str, SeedEstimate]:
        """The likelihoods besides the bound that all runs have, by name."""
        names = [name for name in self.first.likelihoods if all(name in r.run.likelihoods for r in self.runs)]
        return {
            name: SeedEstimate.of([named.run.likelihoods[name].total for named in self.runs])
            for name in names
        }

    def likelihood_differences_from(self, other: "SeedGroup") -> dict[str, SeedEstimate]:
        """This group minus another for the likelihoods that can be compared, as :meth:`differences_from`."""
        same = self.seeds == other.seeds
        pairs = list(zip(other.runs, self.runs, strict=True)) if same else [(other.runs[0], self.runs[0])]
        found = [difference(first.run, second.run) for first, second in pairs]
        known = [{} if one is None else one.likelihoods for one in found]
        names = [name for name in known[0] if all(name in one for one in known)]
        if same:
            return {name: SeedEstimate.of([one[name].estimate for one in known]) for name in names}
        mine, others = self.likelihoods, other.likelihoods
        return {name: mine[name].minus(others[name]) for name in names if name in mine and name in others}

    def differences_from(self, other: "SeedGroup") -> dict[str, SeedEstimate] | None:
        """This group minus another, part by part; None if their bounds cannot be compared.

        Groups with the same seeds are compared seed by seed, which removes what runs of one seed have in
        common. Others are independent.
        """
        if self.seeds == other.seeds:
            pairs = list(zip(other.runs, self.runs, strict=True))
            found = [difference(first.run, second.run) for first, second in pairs]
            known = [one.parts for one in found if one is not None]
            if len(known) < len(found):
                return None
            return {name: SeedEstimate.of([parts[name] for parts in known]) for name in known[0]}
        if difference(other.first, self.first) is None:
            return None
        names = {name: name for name in PARTS} | {"total": self.first.unit.metric}
        return {label: self.part(name).minus(other.part(name)) for label, name in names.items()}


def group_by_seed(runs: Sequence[NamedRun]) -> list[SeedGroup]:
    """Group runs by everything but their seed, in the order of the runs.

    Returns:
        No groups, if no two runs differ in their seed alone. Runs without a bound are left out.
    """
    found: dict[Any, dict[int, NamedRun]] = {}
    for named in runs:
        seed = named.run.config.get(SEED)
        if named.run.held_out is None or not named.run.ledger or not isinstance(seed, int):
            continue
        members = found.setdefault(_key(named.run), {})
        if seed in members:  # the same run twice: not a matter of the seed
            return []
        members[seed] = named
    groups = [tuple(members[seed] for seed in sorted(members)) for members in found.values()]
    if all(len(members) == 1 for members in groups):
        return []
    options = differing([members[0].run for members in groups])
    choices = [{name: value for name, value in chosen.items() if not _is_seed(name)} for chosen in options]
    return [
        SeedGroup(
            name=" ".join(f"{name}={value}" for name, value in chosen.items()) or "all runs",
            choices=chosen,
            runs=members,
            seeds=tuple(int(named.run.config[SEED]) for named in members),
        )
        for members, chosen in zip(groups, choices, strict=True)
    ]


def _key(run: Run) -> tuple[Any, ...]:
    """Everything that the runs of a group have in common."""
    options = comparable_options(run.config)
    ledger = {name: run.ledger.get(name) for name in (*MUST_AGREE, *MEASURED, "timesteps", "estimator")}
    return (
        run.is_evaluation,
        run.held_out,
        tuple(sorted((name, repr(value)) for name, value in options.items() if not _is_seed(name))),
        tuple((name, repr(value)) for name, value in ledger.items()),
    )


def _is_seed(option: str) -> bool:
    """Whether an option follows the seed of the run; the noise of an estimator does not."""
    return option.rpartition(".")[2] == SEED and "estimator" not in option
