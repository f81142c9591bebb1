"""Create the Weights & Biases workspace of a project: the bound term by term, by schedule and loss."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec

INSTALL = "pip install 'nelbo[workspace]'"


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo workspace``."""
    parser.add_argument("entity", metavar="ENTITY", help="W&B user or team")
    parser.add_argument("project", metavar="PROJECT", help="W&B project that runs log to, such as nelbo")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the definition as JSON, and save nothing"
    )


def run(arguments: Namespace) -> None:
    """Save the workspace and print its address, or print the workspace.

    Raises:
        ValueError: without the library, or without a key to save with.
        OSError: when W&B cannot be reached, or refuses.
    """
    if find_spec("wandb_workspaces") is None:
        raise ValueError(f"this command needs wandb-workspaces: {INSTALL}")

    from nelbo.reports.workspace import as_json, bound_workspace

    workspace = bound_workspace(arguments.entity, arguments.project)
    if arguments.dry_run:
        print(as_json(workspace))
        return

    import wandb.errors

    from nelbo.training.loggers.wandb_run import has_key

    if not has_key():
        raise ValueError(
            "saving a workspace needs a W&B key: wandb login, or WANDB_API_KEY; --dry-run works without one"
        )
    try:
        workspace.save()  # which prints the address
    except wandb.errors.Error as error:
        raise OSError(f"W&B: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
