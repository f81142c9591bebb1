"""Run a command: compose its configuration, run its job, and report a failure in one line."""

import difflib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nelbo.cli.claim_folder import ClaimError, claimed_folders, write_hydra_files
from nelbo.cli.launch import communication_error, end_with_agent, is_launched, report_error, write_result
from nelbo.cli.logging import replace_unprintable
from nelbo.cli.overrides import as_typed, value_of
from nelbo.cli.rendezvous import options_of_shared_run, share_run_dir
from nelbo.cli.resume import AUTO, add_resumed_run
from nelbo.cli.sweep.resume_sweep import add_resumed_sweep
from nelbo.cli.sweep.run_job import attempt, is_sweep_job
from nelbo.compose.environment import rank, started_by
from nelbo.compose.stored_config import CONFIG_DIR
from nelbo.runs.files import check_contained

TRACEBACK = "HYDRA_FULL_ERROR"
_SHOWS_WHERE = f" ({TRACEBACK}=1 shows where)"
# Names on the command line, and in the configuration: in evaluate.yaml an experiment is a plain option, in
# sample.yaml a format is that of the images. Hydra would use both as choices of the groups of these names.
SHORT_NAMES = {
    "train": {"sweep": "hydra/sweeper"},
    "evaluate": {"experiment": "trained_as", "format": "format@checkpoint_format"},
    "sample": {"experiment": "trained_as", "format": "image_format"},
}
MAX_LENGTH = 500  # of an error message, in characters

WITHOUT_WORKERS = (
    "data.num_workers=0 fetches in the main process; if workers are needed, give them more memory or shared "
    "memory (/dev/shm), or use fewer"
)


def run(config_name: str, job: Callable[[DictConfig], float | None]) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run the job on it.

    A failure is one line on stderr and exit code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback instead. In a
    sweep the other jobs are run, and the exit code is 1 at the end.
    """
    show_traceback = os.environ.get(TRACEBACK)

    def task(config: DictConfig) -> None:
        def checked() -> float | None:
            return _checked(config, config_name, job)

        with _restored_traceback_setting(show_traceback):
            if is_sweep_job():
                attempt(checked, lambda error: one_line(error, config_name))
            else:
                _or_one_line(checked, config_name, show_traceback)

    def main() -> None:
        sys.argv[1:] = hydra_arguments(config_name, sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(task)()

    if is_launched():
        end_with_agent()
        if rank() > 0:
            warnings.simplefilter("ignore")  # the first rank prints them
    replace_unprintable()
    os.environ[TRACEBACK] = "1"  # Hydra then raises what it would otherwise print over many lines
    with claimed_folders:
        _or_one_line(main, config_name, show_traceback)


def hydra_arguments(config_name: str, arguments: Sequence[str]) -> list[str]:
    """The command line for Hydra, from the one that the user typed.

    Short names are replaced, and a run or sweep that is resumed adds the options that it was started with.

    Raises:
        ValueError: for a run or sweep that cannot be resumed with these options.
    """
    names = SHORT_NAMES[config_name]
    arguments = [re.sub(r"^\w+(?==)", lambda name: names.get(name[0], name[0]), word) for word in arguments]
    resumed = value_of(arguments, "resume")
    if resumed == AUTO:
        resumed = value_of(arguments, "hydra.run.dir")
    if resumed and not is_launched() and Path(resumed).is_dir():  # before any of its files is read
        check_contained(Path(resumed))
    arguments = add_resumed_sweep(arguments, config_name)
    if config_name == "train":
        arguments = add_resumed_run(arguments)
    return [*arguments, *options_of_shared_run(arguments)]


def _checked(config: DictConfig, config_name: str, job: Callable[[DictConfig], float | None]) -> float | None:
    """Check the options and run the job. Launchers pickle the task, which needs a function of a module."""
    from nelbo.compose.options import check_options

    write_hydra_files(config)
    if config_name != "train":
        _check_no_training_choices(config, config_name)
    check_options(config, config_name)
    share_run_dir()
    value = job(config)
    write_result(value)
    return value


@contextmanager
def _restored_traceback_setting(show_traceback: str | None) -> Iterator[None]:
    """Restore the user's setting for processes that the job starts."""
    if show_traceback is None:
        os.environ.pop(TRACEBACK, None)
    try:
        yield
    finally:
        os.environ[TRACEBACK] = "1"


def _or_one_line(action: Callable[[], object], config_name: str, show_traceback: str | None) -> None:
    try:
        action()
    except KeyboardInterrupt:
        if show_traceback:
            raise
        if not is_launched() or rank() == 0:
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (Exception, ClaimError) as error:
        if show_traceback:
            raise
        cause = error.__cause__ if isinstance(error, ClaimError) else error
        assert cause is not None
        report_error(one_line(cause, config_name))
        sys.exit(1)


def one_line(error: BaseException, config_name: str) -> str:
    """The cause of a failure and its remedy, without the exceptions that libraries wrapped around it.

    A long message, such as the output of a compiler, is shortened in the middle.
    """
    line = _one_line(error, config_name)
    if len(line) <= MAX_LENGTH:
        return line
    hint = f" ({TRACEBACK}=1 shows all of it)"
    return f"{line[: MAX_LENGTH // 2]} ... {line.removesuffix(_SHOWS_WHERE)[-MAX_LENGTH // 4 :]}{hint}"


def _one_line(error: BaseException, config_name: str) -> str:
    component = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        key = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
        component = key[1] if key else component
        error = error.__cause__
    message = " ".join(str(error).split())
    if component and not message.startswith(component.partition(".")[0]):
        message = f"{component}: {message}"
    if isinstance(error, RuntimeError) and started_by()[1] > 1:
        explained = communication_error(f"{type(error).__name__} {message}")
        if explained is not None:
            return explained
    if message.startswith("DataLoader worker (pid"):
        return f"a process that fetches data died ({message}): {WITHOUT_WORKERS}"
    if isinstance(error, OverrideParseException):
        return _unreadable_option(error.override)
    if isinstance(error, HydraException | OmegaConfBaseException):
        message = re.sub(r"^In '.*?': | Config search path: .*$", "", message)
        choice = re.match(r"Could not load '([\w/]+)/([^/']+)'", message)
        if choice is not None and (CONFIG_DIR / choice[1]).is_dir():
            there = ", ".join(sorted(path.stem for path in (CONFIG_DIR / choice[1]).glob("*.yaml")))
            return f"there is no {choice[1]}={choice[2]}; there are: {there}"
        group = re.match(r"Could not override '([\w/]+)'. No match in the defaults list", message)
        if group is not None and config_name != "train":
            return _no_such_choice(group[1], config_name)
        return _misspelt_option(message, config_name) or message
    is_ours = type(error).__module__.startswith("nelbo.")
    if is_ours or isinstance(error, ValueError | OSError | ImportError):
        return message
    # an internal error: add its type and how to see the traceback
    return f"{type(error).__name__}: {message}{_SHOWS_WHERE}"


def _unreadable_option(override: str) -> str:
    name, equals, value = override.partition("=")
    if not equals:
        return f"{override}: expected name=value, such as checkpoint=FILE"
    example = as_typed(name, value)
    return f"{override}: Hydra does not read this value as it stands; as a string it is {example}"


def _misspelt_option(message: str, config_name: str) -> str | None:
    found = re.search(r"Could not override '([^']+)'", message)
    if found is None:
        return None
    *parents, name = found[1].replace("/", ".").split(".")
    try:
        node = compose_choices(config_name)
    except HydraException:  # the message is about the choices of groups
        return None
    for parent in parents:
        node = node.get(parent) if isinstance(node, DictConfig) else None
    choices = (
        sorted(str(key) for key in node if not str(key).startswith("_"))
        if isinstance(node, DictConfig)
        else []
    )
    close = difflib.get_close_matches(name, choices, n=1)
    where = f" in {'.'.join(parents)}" if parents else ""
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no option {name}{where}{hint}; there are: {', '.join(choices) or 'none'}"


def _check_no_training_choices(given: DictConfig, config_name: str) -> None:
    """Check that no groups were added that this command does not use.

    Raises:
        ValueError: naming it.
    """
    from nelbo.compose.options import option_names

    unknown = set(map(str, given)) - option_names(config_name)
    if unknown:
        raise ValueError(_no_such_choice(min(unknown), config_name))


def _no_such_choice(name: str, config_name: str) -> str:
    return f"{config_name}.py has no choice of {name}: what it does not ask for comes from the checkpoint"


def compose_choices(config_name: str) -> DictConfig:
    """The configuration with the command line's choices of groups alone: they decide what options exist."""
    groups = {entry.name for entry in CONFIG_DIR.iterdir() if entry.is_dir()}
    # a job of a sweep has other options than the command line of its process
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    chosen = [a for a in given if re.split("[@=]", a)[0] in groups and "," not in a]
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return hydra.compose(config_name, overrides=chosen)
    finally:
        GlobalHydra.instance().hydra = running
