"""Options that differ between runs: of their configurations, and of the measurement in their ledgers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nelbo.reports.numbers import cell
from nelbo.runs.run_folder import Run
from nelbo.text import printable

CLASS = "._target_"
# paths and names of loggers differ in every run
IGNORED = re.compile(r"run_dir|trainer\.default_root_dir|logger\..*")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
MEASURED = ("variance", "first_step", "steps", "weights", "precision")  # entries of the ledger
DEFAULT = "default"  # of an option that was not typed
ENDS_SHOWN = 2  # timesteps at either end of a list


def differing(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run, the options and the entries of the ledger that are not the same in all runs.

    Options of trainings are those that were typed, where these differ: ``schedule=cosine``, and ``default``
    in a run without this option. Otherwise they are those of the configurations.
    """
    measured = [_measured(run.ledger) for run in runs]
    known = {name: {entries[name] for entries in measured if name in entries} for name in MEASURED}
    options = typed_choices(runs)
    if not any(options):
        options = differing_choices([run.config for run in runs])
    return [
        # the variance of the training may differ from that of the measurement
        {name: value for name, value in chosen.items() if not (known["variance"] and _is_variance(name))}
        | {name: value for name, value in entries.items() if len(known[name]) > 1}
        for chosen, entries in zip(options, measured, strict=True)
    ]


def typed_choices(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each training, the typed options that are not the same in all; empty if one has no such options."""
    if any(run.is_evaluation or not run.options for run in runs):
        return [{} for _ in runs]
    names = dict.fromkeys(name for run in runs for name in run.options)
    differ = [name for name in names if len({run.options.get(name) for run in runs}) > 1]
    return [{printable(n): printable(run.options.get(n, DEFAULT)) for n in differ} for run in runs]


def first_choices(choices: Mapping[str, str], most: int) -> tuple[dict[str, str], int]:
    """At most so many of the choices of a run, and the number of the others.

    Where there are more, options that were not typed in this run are left out.
    """
    if len(choices) > most:
        typed = {name: value for name, value in choices.items() if value != DEFAULT}
        choices = typed or {"all": DEFAULT}
    return dict(list(choices.items())[:most]), max(len(choices) - most, 0)


def differing_choices(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each configuration, the options whose values are not the same in all.

    A node of a different class is represented by its class alone, without its options. Paths of a run's
    files, references to something outside the configuration, and copies of another option are left out.
    """
    written = [_flat(config) for config in configs]
    flat = [_resolved(options) for options in written]
    unknown = {key for options in flat for key, value in options.items() if _is_elsewhere(value, options)}
    copies = {
        key
        for key, origin in _references(written).items()
        if all(options.get(key) == options.get(origin) for options in flat)
    }
    keys = dict.fromkeys(key for options in flat for key in options)
    differ = [
        key
        for key in keys
        if not IGNORED.fullmatch(key)
        and key not in unknown | copies
        and any(options.get(key) != flat[0].get(key) for options in flat)
    ]
    classes = [key for key in differ if key.endswith(CLASS)]
    nodes = tuple(key.removesuffix("_target_") for key in classes)
    rest = [key for key in differ if not key.startswith(nodes)] if nodes else differ
    return [
        {
            printable(key.removesuffix(CLASS)): _value(key, options)
            for key in (*classes, *rest)
            if key in options
        }
        for options in flat
    ]


def comparable_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration by their full names, without those that differ in every run."""
    options = _resolved(_flat(config))
    return {
        name: value
        for name, value in options.items()
        if not IGNORED.fullmatch(name) and not _is_elsewhere(value, options)
    }


def _measured(ledger: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a ledger that are compared."""
    found = {name: printable(ledger[name]) for name in MEASURED if name in ledger}
    if "timesteps" in ledger:
        found["steps"] = describe_steps(ledger)
    return found


def _is_variance(name: str) -> bool:
    return name.partition(".")[0] == "variance"


def describe_steps(ledger: Mapping[str, Any]) -> str:
    """The steps of a ledger's chain: ``16 of 1000 (1 68 … 933 1000)``, ``16 of continuous time (0 … 1)``."""
    t = printable(ledger["timesteps"]).split()
    K, T = ledger["K"], ledger["T"]
    if K == T:
        return "continuous time" if T is None else f"all {T}"
    if len(t) > 2 * ENDS_SHOWN:
        t[ENDS_SHOWN:-ENDS_SHOWN] = "…"
    return f"{K} of {'continuous time' if T is None else T} ({' '.join(t)})"


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _references(written: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The options that refer to another one, and their targets."""
    found = {
        key: REFERENCE.fullmatch(value)
        for options in written
        for key, value in options.items()
        if isinstance(value, str)
    }
    return {key: match[1] for key, match in found.items() if match is not None}


def _resolved(options: dict[str, Any]) -> dict[str, Any]:
    """Replace references to other options by values, as the configuration in an evaluation.json has them."""
    origins = _references([options])

    def value_of(key: str, seen: tuple[str, ...] = ()) -> Any:
        origin = origins.get(key)
        if origin is None or origin not in options or origin in seen:
            return options[key]
        return value_of(origin, (*seen, origin))

    return {key: value_of(key) for key in options}


def _is_elsewhere(value: Any, options: Mapping[str, Any]) -> bool:
    folder = str(options.get("run_dir"))
    return isinstance(value, str) and ("${" in value or f"{value}/".startswith(f"{folder}/"))


def _value(key: str, options: Mapping[str, Any]) -> str:
    value = options[key]
    return printable(value).rpartition(".")[2] if key.endswith(CLASS) else cell(value)
