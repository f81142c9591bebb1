"""Start a Weights & Biases run without prompts and with bounded waiting times.

The run is online if a key is configured and the server answers, otherwise offline. ``WANDB_MODE`` takes
precedence.
"""

import logging
import netrc
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import wandb
import wandb.errors
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
    """Start a run on rank 0 and return its logger. A second start in the same folder continues the run.

    Args:
        save_dir: the run's folder; files of W&B are in its subfolder ``wandb/``.
        project: W&B project.
        name: of the run; default: ``WANDB_NAME``, else its data, schedule and loss.
        group: group of runs, such as a sweep.
        tags: of the run; default: ``WANDB_TAGS``, else its data, schedule and loss.
        entity: W&B user or team.
        init_timeout: seconds to wait for the server before the run starts offline.
        finish_timeout: seconds to wait for the upload at the end.
        bound_figure: draws L_t against t; None to log the table only.
    """
    if rank_zero_only.rank != 0:
        return GuardedWandbLogger(save_dir)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # telemetry of W&B
    logging.raiseExceptions = False  # no tracebacks if the log of W&B cannot be written
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
    # offline runs wait for a local process only
    limit = {"init_timeout": init_timeout} if mode == "online" else {}
    try:
        run = start(mode=mode, settings=settings(**limit))  # pyright: ignore[reportArgumentType]
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        failure = str(error).splitlines()[0]
        run = start(mode="offline", settings=settings())
    # a continued run keeps its name and tags, which may have been edited on the server
    named = bool(name or os.environ.get("WANDB_NAME") or earlier)
    tagged = bool(tags or os.environ.get("WANDB_TAGS") or earlier)
    logger = GuardedWandbLogger(save_dir, run, named, tagged, bound_figure)
    if failure is not None:
        logger.guarded.warn(f"{failure}; the run continues offline")
    return logger


def run_id(save_dir: Path) -> str | None:
    """Id of the latest run in the subfolder ``wandb/``; None if there is none."""
    # the prefix is offline-run- until the run is uploaded
    folders = (save_dir / "wandb").glob("*run-*")
    found = [match for f in folders if (match := re.fullmatch(r"(?:offline-)?run-(\d+_\d+)-(.+)", f.name))]
    return max(found, key=lambda match: match[1])[2] if found else None


def has_key() -> bool:
    """Whether a key is configured in ``WANDB_API_KEY`` or in the netrc file (``wandb login``)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return bool(host and netrc.netrc(path).authenticators(host))
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
