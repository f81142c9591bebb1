"""A Weights & Biases run that never prompts, never hangs and never stops the training.

Online when a key is configured and the server answers, otherwise offline; ``WANDB_MODE`` overrules.
"""

import logging
import netrc
import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import wandb
import wandb.errors
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nelbo.option_types import PositiveFloat
from nelbo.training.loggers.wandb_guard import BoundFigure, GuardedWandbLogger


def wandb_logger(
    save_dir: str,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] | None = None,
    entity: str | None = None,
    init_timeout: PositiveFloat = 20.0,
    finish_timeout: PositiveFloat = 60.0,
    bound_figure: BoundFigure | None = None,
) -> GuardedWandbLogger:
    """Start a run, on rank 0 alone, and return its logger. A folder has one run: a second start continues it.

    Args:
        save_dir: the run's folder; W&B's files go to ``wandb/`` in it.
        project: W&B project.
        name: of the run; default: ``WANDB_NAME``, else its data, schedule and loss.
        group: that the run belongs to, such as a sweep.
        tags: of the run; default: ``WANDB_TAGS``, else its data, schedule and loss.
        entity: W&B user or team.
        init_timeout: seconds to wait for the server at the start, before the run is begun offline.
        finish_timeout: seconds to wait at the end for what is not uploaded yet.
        bound_figure: makes the chart of L_t against t; None for the table alone.
    """
    if rank_zero_only.rank != 0:
        return GuardedWandbLogger(save_dir)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # W&B's measurements of itself
    logging.raiseExceptions = False  # W&B's own log file on a full disk is no reason for tracebacks
    wandb.setup(wandb.Settings(show_info=False))
    earlier = run_id(Path(save_dir))
    settings = partial(wandb.Settings, finish_timeout=finish_timeout, silent=True, console="off")
    start = partial(
        wandb.init,
        dir=save_dir,
        project=project,
        name=name,
        group=group,
        tags=list(tags) if tags else None,
        entity=entity,
        id=earlier,
        resume="allow",
    )
    mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    failure = None
    # offline there is no server to lose patience with, only a machine that may be busy
    limit = {"init_timeout": init_timeout} if mode == "online" else {}
    try:
        run = start(mode=mode, settings=settings(**limit))  # pyright: ignore[reportArgumentType]
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        failure = str(error).splitlines()[0]
        run = start(mode="offline", settings=settings())
    # a run that continues keeps what it was named, which may have been changed on the server
    named = bool(name or os.environ.get("WANDB_NAME") or earlier)
    tagged = bool(tags or os.environ.get("WANDB_TAGS") or earlier)
    logger = GuardedWandbLogger(save_dir, run, named, tagged, bound_figure)
    if failure is not None:
        logger.tell(f"{failure}; the run continues offline")
    return logger


def run_id(save_dir: Path) -> str | None:
    """Id of the run whose files are in ``wandb/`` of a folder; None if there is none."""
    # with offline- before it for a run that is not uploaded
    folders = (save_dir / "wandb").glob("*run-*")
    found = [match for f in folders if (match := re.fullmatch(r"(?:offline-)?run-(\d+_\d+)-(.+)", f.name))]
    return max(found, key=lambda match: match[1])[2] if found else None


def finish(loggers: Iterable[Logger]) -> None:
    """End the W&B run, so that the next job of a sweep starts one of its own."""
    for logger in loggers:
        if isinstance(logger, GuardedWandbLogger):
            logger.finish()


def has_key() -> bool:
    """Whether a key is configured, in ``WANDB_API_KEY`` or by ``wandb login`` in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return bool(host and netrc.netrc(path).authenticators(host))
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
