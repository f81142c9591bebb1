"""The folder of a pipeline. Only tensors and plain values are read, never code.

    model_index.json                                 classes of the parts
    unet/config.json                                 the network's options
    unet/diffusion_pytorch_model.safetensors         its weights; .bin in older ones
    scheduler/scheduler_config.json                  the chain
    nelbo.json                                       metadata of an export by nelbo, and checksums of the
                                                     other files

Older folders, such as google/ddpm-cifar10-32, have all files at the top. Weights may be in shards, listed in
``diffusion_pytorch_model.safetensors.index.json``, or of a variant, as in
``diffusion_pytorch_model.fp16.safetensors``. Folders of the training script of diffusers have the averaged
network in ``unet_ema`` and may lack index and scheduler, as does a network that was saved alone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo import torch_file
from nelbo.atomic_file import CHECKSUM, new_folder, read_json, sha256_of, to_json
from nelbo.interop.state_dict import format_list, is_state_dict, where_weights_are, without_wrappers

INDEX, OURS = "model_index.json", "nelbo.json"
PARTS = {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"}
CONFIGS = {"unet": "config.json", "scheduler": "scheduler_config.json"}
WEIGHTS = "diffusion_pytorch_model"
PIPELINE = "DDPMPipeline"
AVERAGED = "unet_ema"
CHECKSUMS = "files"  # in nelbo.json: SHA-256 of every other file, by its name


@dataclass(frozen=True)
class Folder:
    """The content of the folder of a pipeline.

    Attributes:
        unet: options of the network.
        scheduler: options of the scheduler; None if there is none.
        weights: of the network, with the names of diffusers.
        ours: content of nelbo.json; empty if there is none.
        averaged: options and weights of the averaged network, if the folder has both.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any] | None
    weights: dict[str, Tensor]
    ours: dict[str, Any]
    averaged: tuple[dict[str, Any], dict[str, Tensor]] | None = None

    def chosen(self, weights: str) -> "Folder":
        """The folder with the averaged network as its network, if ``weights`` is ``ema`` and there is one."""
        if weights != "ema" or self.averaged is None:
            return self
        unet, averaged = self.averaged
        return replace(self, unet=unet, weights=averaged, averaged=None)


def read_folder(path: Path) -> Folder:
    """Read a folder of a pipeline with a ``UNet2DModel``, or of such a network alone.

    Raises:
        ValueError: if the folder is missing, damaged, or of another pipeline.
    """
    if path.is_file():
        raise ValueError(f"{path} is a file, and format=diffusers reads folders")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    ours = _read_json(path / OURS) if (path / OURS).exists() else {}
    _verify(path, ours.pop(CHECKSUMS, {}))
    homes = {part: path / part if (path / part).is_dir() else path for part in PARTS}
    if (path / INDEX).is_file():
        _check_index(path, _read_json(path / INDEX))
    elif not (homes["unet"] / CONFIGS["unet"]).is_file():
        raise ValueError(
            f"{path} is not a folder of diffusers: it has neither {INDEX} nor {CONFIGS['unet']}; nor is it "
            "that of a run, which has checkpoints/last.ckpt"
        )
    unet = _read_unet(homes["unet"])
    place = homes["scheduler"] / CONFIGS["scheduler"]
    scheduler = _read_json(place) if place.exists() or (path / INDEX).is_file() else None
    averaged = None
    if (path / AVERAGED).is_dir():
        averaged = (_read_unet(path / AVERAGED), _read_weights(path / AVERAGED))
    return Folder(unet, scheduler, _read_weights(homes["unet"]), ours, averaged)


def _check_index(path: Path, index: Mapping[str, Any]) -> None:
    """Check that the pipeline has one network, and that it is a ``UNet2DModel``."""
    kinds = {}
    for part, given in index.items():
        kind = given[-1] if isinstance(given, list) and given else given
        if not part.startswith("_") and isinstance(given, list) and kind is not None:
            kinds[part] = kind
    name = index.get("_class_name")
    others = [f"{part} ({kind})" for part, kind in kinds.items() if part not in PARTS]
    if others:
        raise ValueError(
            f"{path} is a {name} of diffusers, with {format_list(others)}: expected a pipeline of a network "
            f"of images and an optional class, such as {PIPELINE}"
        )
    if kinds.get("unet") != PARTS["unet"]:
        raise ValueError(
            f"{path} is a {name} of diffusers with a unet of class {kinds.get('unet')}: "
            f"only {PARTS['unet']} is supported"
        )


def _read_unet(home: Path) -> dict[str, Any]:
    config = _read_json(home / CONFIGS["unet"])
    kind = config.get("_class_name", PARTS["unet"])
    if kind != PARTS["unet"]:
        raise ValueError(f"{home / CONFIGS['unet']} is of a {kind}: only {PARTS['unet']} is supported")
    return config


def write_folder(path: Path, folder: Folder) -> None:
    """Write a folder for ``DDPMPipeline.from_pretrained``.

    Raises:
        ValueError: if ``path`` exists and is not an empty folder.
        OSError: if it cannot be written.
    """
    from safetensors.torch import save_file

    check_unused(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous().cpu() for name, tensor in folder.weights.items()}
    index = _as_text({"_class_name": PIPELINE, **{part: ["diffusers", name] for part, name in PARTS.items()}})
    with new_folder(path) as unfinished:
        for part, config in (("unet", folder.unet), ("scheduler", folder.scheduler or {})):
            (unfinished / part).mkdir()
            _write(unfinished / part / CONFIGS[part], _as_text({"_class_name": PARTS[part], **config}))
        save_file(weights, unfinished / "unet" / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
        _write(unfinished / INDEX, index)
        written = [
            INDEX,
            *(f"{part}/{file.name}" for part in PARTS for file in (unfinished / part).iterdir()),
        ]
        files = {name: sha256_of(unfinished / name) for name in sorted(written)}
        _write(unfinished / OURS, to_json({**folder.ours, CHECKSUMS: files}))


def check_unused(path: Path) -> None:
    """Check that a model can be written to ``path``.

    Raises:
        ValueError: if ``path`` is a file, or a folder that is not empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise ValueError(f"{path} exists already: use a new or empty folder")


def _read_weights(home: Path) -> dict[str, Tensor]:
    path = _weights_file(home)
    if ".index." not in path.name:
        return _read_weights_file(path)
    shards = _read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{path} lists no weights (weight_map)")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(map(str, shards.values()))):
        if Path(name).name != name or not (home / name).is_file():
            raise ValueError(f"{path} lists the file {name}, which is not in its folder")
        weights |= _read_weights_file(home / name)
    missing = shards.keys() - weights.keys()
    if missing:
        raise ValueError(f"{path} lists weights that are in none of its files: {format_list(missing)}")
    return weights


def _weights_file(home: Path) -> Path:
    """The file of the weights, or the index of its shards; without a variant if there is one."""
    for suffix in ("safetensors", "bin"):
        for name in (f"{WEIGHTS}.{suffix}", f"{WEIGHTS}.{suffix}.index.json"):
            if (home / name).is_file():
                return home / name
    for suffix in ("safetensors", "bin"):
        variants = [
            path
            for path in sorted(home.glob(f"{WEIGHTS}.*"))
            if re.fullmatch(rf"{WEIGHTS}\.(\w+\.{suffix}|{suffix}\.index\.\w+\.json)", path.name)
        ]
        if len(variants) > 1:
            names = format_list(path.name for path in variants)
            raise ValueError(f"{home} has the weights in {len(variants)} variants, {names}: keep one of them")
        if variants:
            return variants[0]
    raise ValueError(f"{home} has neither {WEIGHTS}.safetensors nor {WEIGHTS}.bin")


def _read_weights_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: is it complete?") from error
    content = without_wrappers(torch_file.load(path))
    if not is_state_dict(content):
        inside = where_weights_are(content, "conv_in.weight")
        raise ValueError(f"{path} contains no weights of a network" + (f": {inside}" if inside else ""))
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no {path.name}") from error


def _verify(path: Path, checksums: Any) -> None:
    """Compare the files of a folder with the checksums in nelbo.json.

    Raises:
        ValueError: for a changed or missing file; the message names it.
    """
    if not isinstance(checksums, dict):
        raise ValueError(f"{path / OURS}: {CHECKSUMS} must be a mapping of checksums")
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
