"""Decompress a file of nelbo compress with the model that it was compressed with."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nelbo.cli.compress import (
    add_common_arguments,
    check_file,
    check_folder_of,
    checkpoint_files,
    read_model,
)

if TYPE_CHECKING:
    from torch import Tensor

    from nelbo.data import DataSpec


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo decompress``."""
    parser.add_argument("file", metavar="FILE", type=Path, help="of nelbo compress")
    add_common_arguments(parser, output="new folder of PNG files, or an array (N, ...): FILE.npy")


def run(arguments: Namespace) -> None:
    """Write the images, and print where.

    Raises:
        ValueError: for a file that is damaged, or of another model or other software.
        OSError: when it cannot be read, or the images cannot be written.
    """
    import torch

    from nelbo.cli.logging import quieten_libraries
    from nelbo.compose.codec import build_codec, describe_model
    from nelbo.data.image_file import is_image_name
    from nelbo.evaluation.codec import file
    from nelbo.interop.diffusers.folder import check_unused
    from nelbo.progress import counted
    from nelbo.reports.terminal import make_console, print_fact

    quieten_libraries()
    output, is_array = arguments.output, arguments.output.suffix == ".npy"
    if is_array:
        check_file(output, [*checkpoint_files(arguments), str(arguments.file)])
    else:
        check_folder_of(output)
        if output.suffix == ".npz" or is_image_name(output):
            raise ValueError(f"--output={output}: expected FILE.npy, or the name of a folder")
        check_unused(output)
    header, words = file.read(arguments.file)
    header.check_software(arguments.file)
    model = read_model(arguments.checkpoint, header.weights, arguments.trust)
    if not is_array and not model.spec.fits_png:
        raise ValueError("--output: this data does not fit into PNG files: use FILE.npy")
    try:
        codec = build_codec(
            model.trained,
            header.timesteps,
            clip=header.clip,
            bin_width=header.bin_width,
            batch_size=header.batch_size,
            threads=header.threads,
        )
    except ValueError as error:
        raise ValueError(f"{arguments.file} was compressed with another model: {error}") from error
    header.check_model(arguments.file, describe_model(model.trained, codec))
    if header.label is not None and max(header.label) >= (model.spec.num_classes or 0):
        raise ValueError(f"{arguments.file} has classes that the model does not have")
    cond = None if header.label is None else torch.tensor(header.label)
    started = time.monotonic()
    with counted("decompressing") as progress:
        decoded = codec.decode(words, header.initial_words, header.count, cond, progress)
    header.check_content(arguments.file, decoded)
    seconds = (time.monotonic() - started) / header.count
    if is_array:
        write_array(output, decoded)
    else:
        write_folder(output, decoded, model.spec)
    console = make_console()
    print_fact(console, "images", f"{header.count:,}")
    print_fact(console, "time", f"{seconds:.3f} s per image, threads: {codec.threads}")
    print_fact(console, "output", output)


def write_array(path: Path, decoded: "Tensor") -> None:
    """Write (N, *shape) as they are stored to a .npy file, atomically."""
    import numpy as np

    from nelbo.atomic_file import replacing

    with replacing(path) as unfinished, unfinished.open("wb") as stream:
        np.save(stream, decoded.numpy())


def write_folder(folder: Path, decoded: "Tensor", spec: "DataSpec") -> None:
    """Write a folder of PNG files, numbered in the order of the images; all of it or nothing."""
    from nelbo.atomic_file import new_folder
    from nelbo.runs.images import to_image

    with new_folder(folder) as unfinished:
        for number, value in enumerate(decoded):
            pixels = spec.to_pixels(spec.from_levels(value[None]))[0]
            to_image(pixels).save(unfinished / f"{number:06d}.png", format="PNG")
