"""The message of a failure: one line with the cause and its remedy."""

import re
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nelbo.atomic_file import read_yaml
from nelbo.cli.overrides import SHORT_NAMES, as_typed
from nelbo.cli.project import searched_folders
from nelbo.compose.config import CONFIG_DIR, config_groups, nested_composition, search_path_option
from nelbo.compose.environment import process_count
from nelbo.text import did_you_mean

TRACEBACK = "HYDRA_FULL_ERROR"
SHOWS_WHERE = f" ({TRACEBACK}=1 shows where)"
MAX_LENGTH = 500  # of an error message, in characters
# torch.distributed has one type of exception for all of its errors
COMMUNICATION = re.compile(
    r"DistStore|gloo|nccl|TCPStore|Connection (reset|closed|refused)|Broken pipe|pair closure", re.I
)
UNREACHABLE = re.compile(r"Connection timed out|No route to host|Network is unreachable", re.I)
STALLED = re.compile(r"Timed out|timeout", re.I)
NO_ANSWER = "no answer from another process within the timeout (trainer.strategy.timeout)"
LOST_CONNECTION = "lost the connection to another process"
HOST_UNREACHABLE = f"{LOST_CONNECTION}: its host is down, or the link to it is cut"
WITHOUT_WORKERS = (
    "data.num_workers=0 fetches in the main process; if workers are needed, give them more memory or shared "
    "memory (/dev/shm), or use fewer"
)


def describe_error(error: BaseException, config_name: str) -> str:
    """The cause of a failure and its remedy, without the exceptions that libraries wrapped around it.

    A long message, such as the output of a compiler, is shortened in the middle.
    """
    line = _full_description(error, config_name)
    if len(line) <= MAX_LENGTH:
        return line
    hint = f" ({TRACEBACK}=1 shows all of it)"
    return f"{line[: MAX_LENGTH // 2]} ... {line.removesuffix(SHOWS_WHERE)[-MAX_LENGTH // 4 :]}{hint}"


def _full_description(error: BaseException, config_name: str) -> str:
    component = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        key = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
        component = key[1] if key else component
        error = error.__cause__
    message = " ".join(str(error).split())
    for short, name in SHORT_NAMES[config_name].items():  # the names that were typed
        message = re.sub(rf"(?<![\w.]){name}=", f"{short}=", message)
    if component and not message.startswith(component.partition(".")[0]):
        message = f"{component}: {message}"
    if isinstance(error, RuntimeError) and process_count() > 1:
        explained = communication_error(f"{type(error).__name__} {message}")
        if explained is not None:
            return explained
    if message.startswith("DataLoader worker (pid"):
        return f"a process that fetches data died ({message}): {WITHOUT_WORKERS}"
    if isinstance(error, OverrideParseException):
        return _unreadable_option(error.override)
    if isinstance(error, HydraException | OmegaConfBaseException):
        message = re.sub(r"^In '.*?': | Config search path: .*$", "", message)
        choice = re.match(r"Could not (?:load|find) '([\w/]+)/([^/']+)'", message)
        if choice is not None:
            files = [path for folder in searched_folders() for path in (folder / choice[1]).glob("*.yaml")]
            if files:
                there = sorted({path.stem for path in files})
                hint = did_you_mean(choice[2], there)
                return f"there is no {choice[1]}={choice[2]}{hint}; there are: {', '.join(there)}"
        group = re.match(r"Could not override '([\w/]+)'. No match in the defaults list", message)
        if group is not None and config_name != "train":
            return no_such_choice(group[1], config_name)
        return _misspelt_option(message, config_name) or message
    is_ours = type(error).__module__.startswith("nelbo.")
    if is_ours or isinstance(error, ValueError | OSError | ImportError):
        return message
    # an internal error: add its type and how to see the traceback
    return f"{type(error).__name__}: {message}{SHOWS_WHERE}"


def communication_error(message: str) -> str | None:
    """What an error of torch.distributed means; None for any other error."""
    if not COMMUNICATION.search(message):
        return None
    if UNREACHABLE.search(message):
        return HOST_UNREACHABLE
    return NO_ANSWER if STALLED.search(message) else LOST_CONNECTION


def _unreadable_option(override: str) -> str:
    name, equals, value = override.partition("=")
    if not equals:
        return f"{override}: expected name=value, such as checkpoint=FILE"
    example = as_typed(name, value)
    return f"{override}: Hydra cannot parse this value; quoted as a string it is {example}"


def _misspelt_option(message: str, config_name: str) -> str | None:
    found = re.search(r"Could not override '([^']+)'", message)
    if found is None:
        return None
    *parents, name = found[1].replace("/", ".").split(".")
    try:
        whole = node = compose_choices_only(config_name)
    except HydraException:  # the message is about the choices of groups
        return None
    for parent in parents:
        node = node.get(parent) if isinstance(node, DictConfig) else None
    choices = (
        sorted(str(key) for key in node if not str(key).startswith("_"))
        if isinstance(node, DictConfig)
        else []
    )
    if not parents:
        choices = sorted({*choices, *_groups(config_name)} - {"run_dir"})
    if name in choices:  # the options were replaced before this one was set
        parent = ".".join(parents)
        choice = f"; a choice has its group before it, as in estimator@{parent}=stratified"
        hint = choice if parent.endswith("_estimator") else ""
        return f"{found[1]}: {parent}=... replaces all of its options by one value{hint}"
    where = f" in {'.'.join(parents)}" if parents else ""
    hint = did_you_mean(name, choices) or ("" if parents else _inside_a_choice(name, whole))
    return f"there is no option {name}{where}{hint}; there are: {', '.join(choices) or 'none'}"


def _groups(config_name: str) -> set[str]:
    """Groups that a command chooses from, by the names that it knows them by."""
    defaults = read_yaml(CONFIG_DIR / f"{config_name}.yaml")["defaults"]
    names = {str(name) for entry in defaults if isinstance(entry, dict) for name in entry}
    return (names & config_groups()) | set(SHORT_NAMES[config_name])


def _inside_a_choice(name: str, config: DictConfig) -> str:
    """The hint for the name of an option of one of the choices, such as ``target_stderr``."""
    nodes = {str(key): node for key, node in config.items_ex(resolve=False) if isinstance(node, DictConfig)}
    found = [f"{key}.{name}" for key, node in nodes.items() if name in node]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def no_such_choice(name: str, config_name: str) -> str:
    """The message for a group of ``conf/`` that ``evaluate.py`` or ``sample.py`` does not have."""
    return f"{config_name}.py has no option {name}: it is taken from the checkpoint"


def compose_choices_only(config_name: str) -> DictConfig:
    """The configuration with the command line's choices of groups alone: they decide what options exist."""
    groups = config_groups()
    # a job of a sweep has other options than the command line of its process
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    chosen = [a for a in given if re.split("[@=]", a)[0] in groups and "," not in a]
    with nested_composition():
        return hydra.compose(config_name, overrides=[*chosen, *search_path_option()])
