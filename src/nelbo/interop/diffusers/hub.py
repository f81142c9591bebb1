"""Download and upload of models on the Hugging Face hub, by OWNER/NAME."""

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
    """Whether ``text`` is a valid name of a model on the hub."""
    return re.fullmatch(NAME, text) is not None and not text.startswith(".")


def fetch(name: str) -> Path:
    """Download the files of a model that are read, or find them in the cache of the client; their folder.

    Raises:
        ValueError: without such a model, network access or huggingface_hub.
    """
    suffixes = (*SUFFIXES, ".*", "-*")  # variants and shards
    files = [*CONFIGS.values(), *(f"{WEIGHTS}{suffix}" for suffix in suffixes)]
    patterns = [INDEX, OURS, *files, *(f"{part}/{file}" for part in (*CONFIGS, AVERAGED) for file in files)]
    return Path(_call(name, "fetched", lambda hub: hub.snapshot_download(name, allow_patterns=patterns)))


def push(folder: Path, name: str) -> str:
    """Upload a folder as a model, which is created if necessary; returns its URL.

    Raises:
        ValueError: for an invalid name, and without network access or huggingface_hub.
    """

    def upload(hub: ModuleType) -> str:
        address = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from nelbo")
        return str(address)

    check_has_name(name)
    return _call(name, "pushed", upload)


def check_has_name(name: str) -> None:
    """Check the name of a model on the hub.

    Raises:
        ValueError: for an invalid name.
    """
    if not is_name(name):
        raise ValueError(f"{name} is not a name of a model on the hub: expected OWNER/NAME")


def _call(name: str, done: str, action: Callable[[ModuleType], ResultT]) -> ResultT:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"{name} cannot be {done} without huggingface_hub: pip install huggingface_hub"
        ) from error
    try:
        return action(huggingface_hub)
    except Exception as error:  # of the client, its dependencies, or the network
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{name} cannot be {done}: {reason}") from error
