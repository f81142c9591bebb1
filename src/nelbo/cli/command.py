"""Run a command: compose its configuration, run its job, and report a failure in one line."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nelbo.cli.choices import register_choices
from nelbo.cli.claim_folder import ClaimError, check_unused_folder, claimed_folders
from nelbo.cli.error_message import TRACEBACK, describe_error, no_such_choice
from nelbo.cli.interrupted import report_interruption
from nelbo.cli.launch import end_with_agent, is_launched, report_error, write_result
from nelbo.cli.logging import quieten_libraries, replace_unprintable
from nelbo.cli.overrides import SHORT_NAMES, WITHOUT_HYDRA_FILES, resumed_folder
from nelbo.cli.project import make_importable, read_project
from nelbo.cli.rendezvous import options_of_shared_run, share_run_dir
from nelbo.cli.resume import add_resumed_run
from nelbo.cli.started import store_started_command
from nelbo.cli.sweep.resume_sweep import add_resumed_sweep
from nelbo.cli.sweep.run_job import is_sweep_job, run_job
from nelbo.compose.config import to_plain
from nelbo.compose.environment import rank
from nelbo.runs.files import check_contained
from nelbo.runs.run_options import write_hydra_files


def run(config_name: str, job: Callable[[DictConfig], float | None], subcommand: str | None = None) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run the job on it.

    A failure is one line on stderr and exit code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback instead. In a
    sweep the other jobs are run, and the exit code is 1 at the end.

    Args:
        config_name: of the command.
        job: receives the configuration.
        subcommand: of ``nelbo`` that was typed; None for a script of its own.
    """
    show_traceback = os.environ.get(TRACEBACK)
    import_from: list[str] = []

    def task(config: DictConfig) -> None:
        def checked() -> float | None:
            return _checked(config, config_name, job)

        make_importable(import_from)
        with _restored_traceback_setting(show_traceback):
            if is_sweep_job():
                run_job(checked, lambda error: describe_error(error, config_name))
            else:
                _run_or_report(checked, config_name, show_traceback)

    def main() -> None:
        register_choices()
        project = read_project(sys.argv[1:], config_name)
        import_from.extend(project.import_from)
        if not is_launched():
            store_started_command(subcommand, project.typed)
        sys.argv[1:] = hydra_arguments(config_name, project.arguments)
        hydra.main(version_base="1.3", config_path=project.main, config_name=config_name)(task)()

    if is_launched():
        end_with_agent()
        if rank() > 0:
            warnings.simplefilter("ignore")  # the first rank prints them
    replace_unprintable()
    os.environ[TRACEBACK] = "1"  # Hydra then raises what it would otherwise print over many lines
    with claimed_folders:
        _run_or_report(main, config_name, show_traceback)


def hydra_arguments(config_name: str, arguments: Sequence[str]) -> list[str]:
    """The command line for Hydra, from the one that the user typed.

    Short names are replaced, and a run or sweep that is resumed adds the options that it was started with.

    Raises:
        ValueError: for a run or sweep that cannot be resumed with these options.
    """
    names = SHORT_NAMES[config_name]
    arguments = [re.sub(r"^\w+(?==)", lambda name: names.get(name[0], name[0]), word) for word in arguments]
    resumed = resumed_folder(arguments)
    if resumed is not None and not is_launched() and resumed.is_dir():  # before any of its files is read
        check_contained(resumed)
    arguments = add_resumed_sweep(arguments, config_name)
    if config_name == "train":
        arguments = add_resumed_run(arguments)
    return [*arguments, *options_of_shared_run(arguments)]


def _checked(config: DictConfig, config_name: str, job: Callable[[DictConfig], float | None]) -> float | None:
    """Check the options and run the job.

    A function of the module, because launchers pickle the task, and can pickle what it calls by name only.
    """
    from nelbo.compose.options import check_options

    if is_sweep_job():  # a sweep that is resumed reads the files of jobs that were refused, too
        _write_hydra_files(config)
    if config_name != "train":
        _check_no_training_choices(config, config_name)
    check_options(config, config_name)
    share_run_dir()
    if not config.get("resume"):
        check_unused_folder(Path(config.run_dir), config_name)
    if not is_sweep_job():
        _write_hydra_files(config)
    import torch  # an option that cannot work is answered without it

    quieten_libraries()
    torch.set_float32_matmul_precision("high")  # TF32 in the network; products of the bound are in float64
    value = job(config)
    write_result(value)
    return value


def _write_hydra_files(config: DictConfig) -> None:
    """Write ``.hydra/``, unless another process of the job does."""
    hydra_config = HydraConfig.get()
    if WITHOUT_HYDRA_FILES not in hydra_config.overrides.hydra:
        write_hydra_files(
            Path(hydra_config.runtime.output_dir),
            to_plain(config),
            to_plain(hydra_config, resolve=False),
            hydra_config.overrides.task,
        )


@contextmanager
def _restored_traceback_setting(show_traceback: str | None) -> Iterator[None]:
    """Restore the user's setting for processes that the job starts."""
    if show_traceback is None:
        os.environ.pop(TRACEBACK, None)
    try:
        yield
    finally:
        os.environ[TRACEBACK] = "1"


def _run_or_report(action: Callable[[], object], config_name: str, show_traceback: str | None) -> None:
    try:
        action()
    except KeyboardInterrupt:
        if show_traceback:
            raise
        sys.exit(report_interruption(shown=not is_launched() or rank() == 0))
    except (Exception, ClaimError) as error:
        if show_traceback:
            raise
        cause = error.__cause__ if isinstance(error, ClaimError) else error
        assert cause is not None
        report_error(describe_error(cause, config_name))
        sys.exit(1)


def _check_no_training_choices(given: DictConfig, config_name: str) -> None:
    """Check that no groups were added that this command does not use.

    Raises:
        ValueError: naming it.
    """
    from nelbo.compose.options import option_names

    unknown = set(map(str, given)) - option_names(config_name)
    if unknown:
        raise ValueError(no_such_choice(min(unknown), config_name))
