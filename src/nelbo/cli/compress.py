"""Compress images to as many bits as the bound of a model says, without loss."""

import os
import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nelbo.data import DataSpec
    from nelbo.evaluation.codec import ChainCodec, Coded
    from nelbo.pretrained import Model

SPLITS = ("train", "val", "test")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo compress``."""
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="*",
        help="image files, folders of them, or arrays (N, ...): FILE.npy, FILE.npz/NAME",
    )
    add_common_arguments(parser, output="file to write, such as images.nelbo")
    parser.add_argument("--split", choices=SPLITS, help="compress a split of the model's data instead")
    parser.add_argument(
        "--max-examples",
        metavar="N",
        type=int,
        help="size of a random subset of the split, as in evaluate.py",
    )
    parser.add_argument("--cond", metavar="CLASS", help="class of the images, for a conditional model")
    parser.add_argument("--steps", metavar="K", type=int, help="of the chain; default: 50")
    parser.add_argument(
        "--spacing",
        metavar="NAME",
        help="of conf/spacing; default: optimal, which needs the data of the model; even in continuous time",
    )
    parser.add_argument("--clip", action="store_true", help="clamp x0_hat to the range of the data")
    parser.add_argument(
        "--bin-width", metavar="WIDTH", type=float, help="of continuous data, which is rounded to multiples"
    )
    parser.add_argument(
        "--batch-size",
        metavar="B",
        type=int,
        default=32,
        help="most images that are coded together; default: 32",
    )
    parser.add_argument("--threads", metavar="N", type=int, help="of the network; default: those of torch")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="averaged or raw; default: ema"
    )


def add_common_arguments(parser: ArgumentParser, output: str) -> None:
    """Define the arguments that ``compress`` and ``decompress`` share, with a description of the output."""
    parser.add_argument("--checkpoint", metavar="CHECKPOINT", required=True, help="of the model")
    parser.add_argument("--output", "-o", metavar="PATH", type=Path, required=True, help=output)
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action="append",
        help="class or package that the checkpoint may name although conf/ does not; may be repeated",
    )


def run(arguments: Namespace) -> None:
    """Write the file, and print its size and the bound.

    Raises:
        ValueError: for images or options that cannot work.
        OSError: when the images cannot be read or the file cannot be written.
    """
    import torch

    from nelbo.cli.logging import quieten_libraries
    from nelbo.compose.codec import build_codec, choose_timesteps, describe_model
    from nelbo.evaluation.codec import check_bin_width, file
    from nelbo.evaluation.codec.stack import constriction
    from nelbo.progress import counted

    quieten_libraries()
    constriction()
    paths = image_paths(arguments.images)
    check_arguments(arguments, paths)
    model = read_model(arguments.checkpoint, arguments.weights, arguments.trust)
    check_bin_width(model.spec, arguments.bin_width)
    stored, cond = read_images(arguments, paths, model)
    timesteps = choose_timesteps(model.trained, arguments.spacing, arguments.steps, arguments.clip)
    codec = build_codec(
        model.trained,
        timesteps,
        clip=arguments.clip,
        bin_width=arguments.bin_width,
        batch_size=arguments.batch_size,
        threads=arguments.threads or torch.get_num_threads(),
    )
    content = file.content_hash(codec.rounded(stored))  # values that cannot be coded are refused here
    started = time.monotonic()
    with counted("compressing") as progress:
        coded = codec.encode(stored, cond, progress)
    header = file.Header(
        model=describe_model(model.trained, codec),
        weights=arguments.weights,
        clip=arguments.clip,
        software=file.software(),
        count=len(stored),
        bin_width=arguments.bin_width,
        label=None if cond is None else cond.tolist(),
        gaps=[t - s for s, t in pairwise([0, *timesteps])],
        batch_size=codec.batch_size,
        threads=codec.threads,
        initial_words=coded.initial_words,
        content=content,
    )
    size = file.write(arguments.output, header, coded.words)
    print_result(coded, codec, len(stored), size, time.monotonic() - started, arguments.output)


def check_arguments(arguments: Namespace, paths: list[str]) -> None:
    """Check what can be checked without the model.

    Args:
        arguments: of the command.
        paths: of the images and arrays.

    Raises:
        ValueError: naming the option.
    """
    from nelbo.evaluation.codec.file import MOST_AT_ONCE

    check_file(arguments.output, [*checkpoint_files(arguments), *paths])
    if bool(arguments.images) == (arguments.split is not None):
        raise ValueError("which images? Name files or folders, or --split test of the model's data")
    if arguments.split is None and arguments.max_examples is not None:
        raise ValueError("--max-examples is the size of a subset of a split: add --split test")
    for option in ("batch_size", "threads"):
        value = getattr(arguments, option)
        if value is not None and not 1 <= value <= MOST_AT_ONCE:
            raise ValueError(
                f"--{option.replace('_', '-')}={value}: expected an integer from 1 to {MOST_AT_ONCE}"
            )
    if arguments.bin_width is not None and not 0 < arguments.bin_width < float("inf"):
        raise ValueError(f"--bin-width={arguments.bin_width}: expected a positive number")


def check_folder_of(output: Path) -> None:
    """Check that the folder of an output is there and can be written, before anything is computed.

    Raises:
        ValueError: naming the output.
    """
    if not output.parent.is_dir():
        raise ValueError(f"--output={output}: there is no folder {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"--output={output}: the folder {output.parent} cannot be written")


def checkpoint_files(arguments: Namespace) -> list[str]:
    """The checkpoint that is read: a file, or that of a run's folder."""
    from nelbo.runs.paths import LAST

    return [arguments.checkpoint, str(Path(arguments.checkpoint) / LAST)]


def check_file(output: Path, inputs: Iterable[str]) -> None:
    """Check that an output can be a file, and that it replaces no input.

    Args:
        output: to check.
        inputs: names of files, or of their arrays.

    Raises:
        ValueError: naming the output.
    """
    check_folder_of(output)
    if output.is_dir():
        raise ValueError(f"--output={output}: it is a folder, and a file is written")
    files = (Path(re.sub(r"\.npz/.*", ".npz", name)) for name in inputs)
    if output.exists() and any(path.exists() and output.samefile(path) for path in files):
        raise ValueError(f"--output={output}: it is an input, which would be lost: choose another name")


def read_model(checkpoint: str, weights: str, trust: list[str] | None) -> "Model":
    """The model of a checkpoint, on the CPU: GPUs do not return the same bits for the same input."""
    from nelbo.cli.project import make_importable
    from nelbo.pretrained import load

    if trust:
        make_importable([str(Path.cwd())])
    return load(checkpoint, weights=weights, trust=trust, device="cpu")


def read_images(arguments: Namespace, paths: list[str], model: "Model") -> "tuple[Tensor, Tensor | None]":
    """The examples to compress, (N, *shape) as they are stored, and the classes (N,) of a conditional model.

    Args:
        arguments: of the command.
        paths: of the images and arrays.
        model: to compress with.

    Raises:
        ValueError: for examples that are not of the model's shape and levels, or classes that cannot work.
        OSError: when they cannot be read.
    """
    import torch

    from nelbo.compose.cond import class_number
    from nelbo.compose.trained import read_data

    spec, conditional = model.spec, model.trained.module.conditional
    if conditional and spec.cond is not None:
        raise ValueError(
            "compress is for unconditional models and for classes, and this model has other conditions"
        )
    if arguments.cond is not None and (not conditional or arguments.split is not None):
        reason = "the split has the classes" if conditional else "the model was trained without classes"
        raise ValueError(f"--cond={arguments.cond}: {reason}")
    if arguments.split is not None:
        data = read_data(model.trained)
        if arguments.max_examples is not None:
            data.subset(arguments.split, arguments.max_examples)
        examples = data.split(arguments.split)
        batch = examples.fetch(torch.arange(len(examples)), 0)
        cond = batch.cond if conditional else None
        assert not isinstance(cond, dict), "refused above"
        return batch.x0, None if cond is None else torch.as_tensor(cond).long()
    stored = torch.cat([read_file(path, spec) for path in paths])
    if not conditional:
        return stored, None
    if arguments.cond is None:
        raise ValueError("the model is conditional: name the class of the images, --cond=CLASS")
    return stored, torch.full((len(stored),), class_number(arguments.cond, spec))


def image_paths(names: list[str]) -> list[str]:
    """The files that are named, and all images in the folders, sorted by their names.

    Raises:
        ValueError: for a folder without images.
    """
    from nelbo.data.image_file import is_image_name

    found: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = [path for path in sorted(Path(name).rglob("*")) if path.is_file() and is_image_name(path)]
        if not inside:
            raise ValueError(f"{name}: there are no images in this folder")
        found += map(str, inside)
    return found


def read_file(name: str, spec: "DataSpec") -> "Tensor":
    """The examples of an image or an array, (N, *shape) as they are stored.

    Raises:
        ValueError: for other shapes or values than those of ``spec``.
        OSError: when the file cannot be read.
    """
    import numpy as np
    import torch

    from nelbo.data.array import open_array
    from nelbo.data.image_file import read_pixels
    from nelbo.data.to_stored import to_stored

    try:
        if Path(name).suffix == ".npz":
            raise ValueError("name one of its arrays: FILE.npz/NAME")
        if Path(name).suffix == ".npy" or ".npz/" in name:
            values = np.array(open_array(Path(), name, "IMAGES"))
            if values.dtype.kind not in "biuf":
                raise ValueError(f"{values.dtype} is not a type of images")
            return to_stored(values, spec)
        if not spec.fits_png:
            raise ValueError("the model is not for grey or RGB images of at most 256 levels: give an array")
        pixels = read_pixels(Path(name))[None]
        if tuple(pixels.shape[1:]) != spec.shape:
            raise ValueError(
                f"the image has shape {tuple(pixels.shape[1:])}, and the model needs {spec.shape}"
            )
        stored = spec.to_levels(pixels / 127.5 - 1.0)
        if not torch.equal(spec.to_pixels(spec.from_levels(stored)), pixels):
            raise ValueError(f"the image has pixels that are none of the {spec.levels} levels of the model")
        return stored
    except ValueError as error:
        raise error if name in str(error) else ValueError(f"{name}: {error}") from error


def print_result(
    coded: "Coded", codec: "ChainCodec", count: int, size: int, seconds: float, output: Path
) -> None:
    """Print the size of the file and the bound of the chain on the same trajectories."""
    import math

    from nelbo.reports.numbers import plus_minus
    from nelbo.reports.terminal import make_console, print_fact

    console, dims = make_console(), codec.spec.dims
    per_dim = codec.nats(coded) / (dims * math.log(2))
    bound = float(per_dim.mean())
    stderr = float(per_dim.std()) / math.sqrt(count) if count > 1 else math.nan
    net = coded.net_bits / (count * dims)
    print_fact(console, "images", f"{count:,} of {dims:,} dimensions, {codec.chain.num_steps} steps")
    print_fact(
        console,
        "file",
        f"{size:,} bytes, {8 * size / (count * dims):.4f} bits/dim with header and initial bits",
    )
    print_fact(console, "code", f"{net:.4f} bits/dim, {net / bound - 1:+.2%} relative to the bound")
    print_fact(console, "bound", f"{plus_minus(bound, stderr)} bits/dim, on the latents that were drawn")
    print_fact(console, "initial", f"{32 * coded.initial_words:,} bits, once per file")
    print_fact(console, "time", f"{seconds / count:.3f} s per image, threads: {codec.threads}")
    print_fact(console, "output", output)
