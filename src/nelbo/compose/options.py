"""Checks every option of a configuration before anything is built from it.

An option is checked against the annotation of the constructor argument that it is passed to: its type, its
range and whether it may be null. A component of a user's own is checked the same way; arguments without an
annotation are not checked. Options that no constructor of ours receives are in ``declared_options``.

pydantic compares in its strict JSON mode: true is no integer, ``"3"`` is no number, 3 is a float, a list is a
tuple, and NaN and infinity are refused.
"""

import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import (
    Any,
    NotRequired,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from nelbo.compose.config import to_plain
from nelbo.compose.declared_options import (
    COMMANDS,
    DECLARED,
    SUPPLIED,
    UNSUPPORTED,
    Component,
    MaxExamples,
)
from nelbo.text import did_you_mean, json_to_validate

Problems = Iterator[tuple[str, str]]  # the path of an option, and a message
MISSING = "???"
RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def option_names(command: str) -> set[str]:
    """Names of the options of a command: ``train``, ``evaluate`` or ``sample``."""
    return set(_hints(COMMANDS[command]))


def check_options(config: DictConfig, command: str) -> None:
    """Check all options of a command.

    Args:
        config: composed, of ``train``, ``evaluate`` or ``sample``.
        command: which of them.

    Raises:
        ValueError: naming the first option that is wrong, its value and what is expected.
    """
    copied: ValueError | None = None  # an interpolation of a wrong option: that option is named instead
    for path, problem in _problems(to_plain(config), command):
        *parents, name = path.split(".")
        parent = OmegaConf.select(config, ".".join(parents)) if parents else config
        if isinstance(parent, DictConfig) and name in parent and OmegaConf.is_interpolation(parent, name):
            copied = copied or ValueError(problem)
        else:
            raise ValueError(problem)
    if copied is not None:
        raise copied


def check_component(path: str, node: Mapping[str, Any]) -> None:
    """Check the arguments of a component, and of those inside it.

    The modules of its targets are imported: use it only on a configuration that is trusted.

    Args:
        path: where it is in the configuration.
        node: plain values.

    Raises:
        ValueError: naming the first option that is wrong, its value and what is expected.
    """
    for _, problem in _problems_of_component(path, node):
        raise ValueError(problem)


def has_argument(target: str, name: str) -> bool:
    """Whether a component accepts an argument. Its module is imported: it must be trusted.

    Raises:
        ImportError: when there is no such component.
    """
    arguments, takes_any = _arguments(target)
    return takes_any or name in arguments


def names_argument(target: str, name: str) -> bool:
    """As :func:`has_argument`, and not by ``**kwargs`` alone."""
    return name in _arguments(target)[0]


def _problems(values: Mapping[str, Any], command: str) -> Problems:
    yield from _problems_of_entries("", values, COMMANDS[command])
    if command == "train":
        yield from _problems_of_entries("max_examples", values.get("max_examples", {}), MaxExamples)
        if values["callbacks"].get("validation_bound") is None:
            path = "callbacks.validation_bound"
            yield path, f"{path}=null: the bound is what a run reports; keep this callback"
    for name in {"callbacks", "likelihood", "logger"} & values.keys():
        for key, node in (values[name] or {}).items():
            yield from _problems_of_value(f"{name}.{key}", node, Component | None)
            if isinstance(node, dict) and "_target_" not in node:
                yield f"{name}.{key}", f"{name}.{key} is no component: it has no _target_"
    components = [(name, value) for name, value in values.items() if isinstance(value, dict)]
    # first those that are answered without an import, which takes seconds
    for name, value in sorted(components, key=lambda item: not _declared(item[1].get("_target_", ""))):
        yield from _problems_of_component(name, value)


def _problems_of_entries(path: str, values: Mapping[str, Any], declared: type) -> Problems:
    """The entries of a node without _target_ against a TypedDict."""
    hints, start = _hints(declared), f"{path}." if path else ""
    for name, annotation in hints.items():
        if name in values:
            yield from _problems_of_value(f"{start}{name}", values[name], annotation)
        elif name in declared.__required_keys__:
            yield f"{start}{name}", f"{start}{name}: missing; expected {expected(annotation)}"
    for name in values:
        if name not in hints:
            yield f"{start}{name}", _unknown(name, path, list(hints))


def _problems_of_component(path: str, node: Mapping[str, Any]) -> Problems:
    if "_target_" in node:
        yield from _problems_of_arguments(path, node)
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _problems_of_component(f"{path}.{key}", value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _problems_of_component(f"{path}.{key}[{index}]", item)


def _problems_of_arguments(path: str, node: Mapping[str, Any]) -> Problems:
    target = str(node["_target_"])
    supplied = SUPPLIED.get(path, SUPPLIED["callbacks"] if path.startswith("callbacks.") else set())
    declared = _declared(target)
    unsupported = UNSUPPORTED if target == "lightning.Trainer" else {}
    given = {str(name): f"{path}.{name}" for name in node if name not in RESERVED}
    for name, option in given.items():
        if name in supplied:
            yield option, f"{option}={shown(node[name])}: not an option; other options determine it"
        elif name in unsupported:
            yield option, f"{option}={shown(node[name])}: not supported; {unsupported[name]}"
        elif name in declared:
            yield from _problems_of_value(option, node[name], declared[name])
    others = given.keys() - supplied - unsupported.keys() - declared.keys()
    if declared and not others:
        return  # answered without importing the library
    try:
        arguments, takes_any = _arguments(target)
    except ImportError as error:
        yield f"{path}._target_", f"{path}._target_={target}: {error}"
        return
    for name in sorted(others):
        if name in arguments:
            yield from _problems_of_value(given[name], node[name], arguments[name].annotation)
        elif not takes_any:
            choices = set(arguments) - supplied - unsupported.keys()
            yield given[name], _unknown(name, path, list(choices))
    if node.get("_partial_") or "_args_" in node:
        return
    for name, parameter in arguments.items():
        if parameter.default is parameter.empty and name not in given and name not in supplied:
            yield f"{path}.{name}", f"{path}.{name}: missing; expected {expected(parameter.annotation)}"


@cache
def _arguments(target: str) -> tuple[dict[str, inspect.Parameter], bool]:
    """Keyword arguments of a target, and whether it accepts others.

    Raises:
        ImportError: when there is no such class or function.
    """
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:  # the import of a module may raise anything
        raise ImportError(f"cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise ImportError("neither a class nor a function")
    signature = _signature(found)
    arguments: dict[str, inspect.Parameter] = {}
    takes_any = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            if parameter.kind is not parameter.VAR_POSITIONAL:
                arguments[name] = parameter
        elif get_origin(parameter.annotation) is Unpack:
            entries = get_type_hints(get_args(parameter.annotation)[0], include_extras=True)
            arguments |= {
                entry: inspect.Parameter(entry, parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                for entry, annotation in entries.items()
            }
        else:
            takes_any = True
    return arguments, takes_any


def _signature(found: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(found, eval_str=True)
    except NameError:  # an annotation that only type checkers can resolve
        return inspect.signature(found)
    except ValueError:  # a builtin without a signature
        return inspect.Signature([inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)])


def _declared(target: str) -> dict[str, Any]:
    """The options of a target that are declared here."""
    return next((_hints(of) for name, of in DECLARED.items() if target.startswith(name)), {})


@cache
def _hints(declared: type) -> dict[str, Any]:
    hints = get_type_hints(declared, include_extras=True)
    return {
        name: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for name, hint in hints.items()
    }


def _problems_of_value(path: str, value: Any, annotation: Any) -> Problems:
    adapter = _adapter(annotation)
    if adapter is None or value == MISSING or (isinstance(value, dict) and "_target_" in value):
        return
    try:
        adapter.validate_json(json_to_validate(value))
    except ValidationError:
        hint = ""
        if path == "max_examples":
            hint = f": {', '.join(f'{path}.{name}' for name in _hints(MaxExamples))}"
        elif annotation == Component and isinstance(value, str):
            hint = f"; what is chosen has its group before it, as in estimator@{path}={value}"
        yield path, f"{path}={shown(value)}: expected {expected(annotation)}{hint}"


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """None for what pydantic cannot check: no annotation, or the class of another component."""
    if annotation is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def expected(annotation: Any) -> str:
    """What an annotation accepts, in words: ``an integer >= 1, or null``."""
    adapter = _adapter(annotation)
    return "a value" if adapter is None else _described(adapter.json_schema())


WORDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "null": "null",
    "object": "options",
}
RANGES = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
}


def _described(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        *first, last = [_described(option).removeprefix("one of ") for option in schema["anyOf"]]
        return f"{', '.join(first)} or {last}"
    if "description" in schema:
        return schema["description"]
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(dict.fromkeys(map(shown, schema['enum'])))}"
    if schema.get("type") == "array":
        low, high = schema.get("minItems"), schema.get("maxItems")
        count = f" of {low}" if low == high and low is not None else ""
        kind = "a non-empty list" if low and not count else "a list"
        items = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"{kind}{count}" + (f" (each {_described(items)})" if items else "")
    limits = [text.format(shown(schema[name])) for name, text in RANGES.items() if name in schema]
    return " ".join([WORDS.get(schema.get("type", ""), "a value"), " and ".join(limits)]).strip()


def shown(value: Any) -> str:
    """A value in the syntax of the command line."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value)
    return str(value)


def _unknown(name: str, path: str, choices: list[str]) -> str:
    where = f" in {path}" if path else ""
    hint = did_you_mean(name, choices)
    return f"there is no option {name}{where}{hint}; there are: {', '.join(sorted(choices)) or 'none'}"
