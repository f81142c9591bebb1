"""A pipeline's folder: which files it has, and what is in them. Tensors and plain values only, never code.

    model_index.json                                 which classes the parts are of
    unet/config.json                                 the network's options
    unet/diffusion_pytorch_model.safetensors         its weights; .bin in older ones
    scheduler/scheduler_config.json                  the chain
    nelbo.json                                       what diffusers has no place for, and checksums of the
                                                     other files, if we wrote it

Older folders, google/ddpm-cifar10-32 among them, have everything at the top.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.atomic_file import CHECKSUM, read_json, sha256_of, to_json
from nelbo.interop.file import is_state_dict, read_file

INDEX, OURS = "model_index.json", "nelbo.json"
PARTS = {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"}
CONFIGS = {"unet": "config.json", "scheduler": "scheduler_config.json"}
WEIGHTS = "diffusion_pytorch_model"
PIPELINE = "DDPMPipeline"
CHECKSUMS = "files"  # in nelbo.json: SHA-256 of every other file, by its name


@dataclass(frozen=True)
class Folder:
    """What a pipeline's folder holds.

    Attributes:
        unet: the network's options.
        scheduler: the chain's.
        weights: of the network, under diffusers' names.
        ours: what is in nelbo.json; empty where there is none.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    weights: dict[str, Tensor]
    ours: dict[str, Any]


def read_folder(path: Path) -> Folder:
    """Read a folder of ``DDPMPipeline``.

    Raises:
        ValueError: in one line, when it is not there, damaged, or of another pipeline.
    """
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    if not (path / INDEX).is_file():
        raise ValueError(f"{path} is not a pipeline of diffusers: it has no {INDEX}")
    ours = _read_json(path / OURS) if (path / OURS).exists() else {}
    _verify(path, ours.pop(CHECKSUMS, {}))
    index = _read_json(path / INDEX)
    if index.get("_class_name") != PIPELINE:
        raise ValueError(f"{path} is a {index.get('_class_name')} of diffusers: only {PIPELINE} is read")
    for part, name in PARTS.items():
        given = index.get(part)
        kind = given[-1] if isinstance(given, list) and given else given
        if kind != name:
            raise ValueError(f"{path}: its {part} is a {kind}, and only {name} is read")
    homes = {part: path / part if (path / part).is_dir() else path for part in PARTS}
    configs = {part: _read_json(homes[part] / CONFIGS[part]) for part in PARTS}
    return Folder(configs["unet"], configs["scheduler"], _read_weights(homes["unet"]), ours)


def write_folder(path: Path, folder: Folder) -> None:
    """Write a folder that ``DDPMPipeline.from_pretrained`` opens.

    Raises:
        ValueError: when there is something at ``path`` already.
        OSError: when it cannot be written.
    """
    from safetensors.torch import save_file

    refuse_used(path)
    for part in PARTS:
        (path / part).mkdir(parents=True)
    weights = {name: tensor.contiguous().cpu() for name, tensor in folder.weights.items()}
    save_file(weights, path / "unet" / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
    for part, config in (("unet", folder.unet), ("scheduler", folder.scheduler)):
        _write(path / part / CONFIGS[part], _as_text({"_class_name": PARTS[part], **config}))
    files = {file.relative_to(path).as_posix(): sha256_of(file) for file in sorted(path.glob("*/*"))}
    index = _as_text({"_class_name": PIPELINE, **{part: ["diffusers", name] for part, name in PARTS.items()}})
    files[INDEX] = hashlib.sha256(index.encode()).hexdigest()
    _write(path / OURS, to_json({**folder.ours, CHECKSUMS: files}))
    _write(path / INDEX, index)  # the last: without it nothing opens


def refuse_used(path: Path) -> None:
    """Keep a model from being written over something.

    Raises:
        ValueError: when ``path`` is a file, or a folder that is not empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise ValueError(f"{path} is there already: name a new folder, or an empty one")


def _read_weights(home: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = home / f"{WEIGHTS}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: is it whole?") from error
    older = path.with_suffix(".bin")
    if not older.is_file():
        raise ValueError(f"{home} has neither {path.name} nor {older.name}")
    content = read_file(older)
    if not is_state_dict(content):
        raise ValueError(f"{older} holds no weights of a network")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}") from error


def _verify(path: Path, checksums: Any) -> None:
    """Compare the files of a folder with the checksums in nelbo.json.

    Raises:
        ValueError: naming a file that was changed, or is missing.
    """
    if not isinstance(checksums, dict):
        raise ValueError(f"{path / OURS}: its {CHECKSUMS} are none")
    for name, expected in checksums.items():
        try:
            problem = None if sha256_of(path / name) == expected else "was damaged or edited after the export"
        except FileNotFoundError:
            problem = "is missing"
        if problem is not None:
            raise ValueError(
                f"{path / name} {problem} (SHA-256 in {OURS}): export the model again, or, if the change is "
                f"intended, remove {CHECKSUMS} and {CHECKSUM} from {OURS}"
            )


def _as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
