"""Models on the Hugging Face hub, by OWNER/NAME. The client is imported only when it is needed."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from nelbo.interop.diffusers.folder import AVERAGED, CONFIGS, INDEX, OURS, WEIGHTS

NAME = r"[\w.-]+/[\w.-]+"
SUFFIXES = (".safetensors", ".bin")
ResultT = TypeVar("ResultT")


def is_name(text: str) -> bool:
    """Whether it could be the name of a model on the hub."""
    return re.fullmatch(NAME, text) is not None and not text.startswith(".")


def fetch(name: str) -> Path:
    """The folder of a model, downloaded unless it is in the client's cache; no other files of it.

    Raises:
        ValueError: in one line, when there is no such model, no network or no client.
    """
    suffixes = (*SUFFIXES, ".*", "-*")  # the last for variants and for shards
    files = [*CONFIGS.values(), *(f"{WEIGHTS}{suffix}" for suffix in suffixes)]
    wanted = [INDEX, OURS, *files, *(f"{part}/{file}" for part in (*CONFIGS, AVERAGED) for file in files)]
    return Path(_ask(name, "fetched", lambda hub: hub.snapshot_download(name, allow_patterns=wanted)))


def push(folder: Path, name: str) -> str:
    """Upload a folder as a model, making it if there is none of this name; returns its address.

    Raises:
        ValueError: in one line, for a name that is none, and when there is no network or no client.
    """

    def upload(hub: ModuleType) -> str:
        address = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from nelbo")
        return str(address)

    check_has_name(name)
    return _ask(name, "pushed", upload)


def check_has_name(name: str) -> None:
    """Refuse what cannot be a name.

    Raises:
        ValueError: when it cannot.
    """
    if not is_name(name):
        raise ValueError(f"{name} is no name of a model on the hub: expected OWNER/NAME")


def _ask(name: str, done: str, question: Callable[[ModuleType], ResultT]) -> ResultT:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"{name} cannot be {done} without the hub's client: pip install huggingface_hub"
        ) from error
    try:
        return question(huggingface_hub)
    except Exception as error:  # of the client, of what it is built on, and of the network
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{name} cannot be {done}: {reason}") from error
