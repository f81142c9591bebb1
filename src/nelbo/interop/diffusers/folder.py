"""A pipeline's folder: which files it has, and what is in them. Tensors and plain values only, never code.

    model_index.json                                 which classes the parts are of
    unet/config.json                                 the network's options
    unet/diffusion_pytorch_model.safetensors         its weights; .bin in older ones
    scheduler/scheduler_config.json                  the chain
    nelbo.json                                       what diffusers has no place for, if we wrote it

Older folders, google/ddpm-cifar10-32 among them, have everything at the top.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.interop.file import is_state_dict, read_file

INDEX, OURS = "model_index.json", "nelbo.json"
PARTS = {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"}
CONFIGS = {"unet": "config.json", "scheduler": "scheduler_config.json"}
WEIGHTS = "diffusion_pytorch_model"
PIPELINE = "DDPMPipeline"


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
    ours = _read_json(path / OURS) if (path / OURS).exists() else {}
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
        _write_json(path / part / CONFIGS[part], {"_class_name": PARTS[part], **config})
    _write_json(path / OURS, folder.ours)
    classes = {part: ["diffusers", name] for part, name in PARTS.items()}
    _write_json(path / INDEX, {"_class_name": PIPELINE, **classes})  # the last: without it nothing opens


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read: expected a JSON object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
