"""The sampling job: draw samples of a trained model into a folder."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from nelbo.atomic_file import write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nelbo.compose.trained import TrainedModel
    from nelbo.data import DataSpec
    from nelbo.diffusion.chain import Chain
    from nelbo.diffusion.spacings import Spacing
    from nelbo.evaluation.generation import SampleGenerator
    from nelbo.evaluation.processes import Processes
    from nelbo.evaluation.sample_metrics.features import Features
    from nelbo.runs.sample_folder import SampleFolder

STRIP_ROWS = 8


def sample(config: DictConfig) -> None:
    """Draw samples; those that are there already are not drawn again.

    Raises:
        ValueError: for a checkpoint that cannot be read, options that cannot work, or a folder that holds
            other samples.
        OSError: for a folder that cannot be written.
    """
    from hydra.utils import instantiate

    from nelbo.cli.processes import run_on_ranks, start_processes
    from nelbo.compose.build import build_sampler
    from nelbo.compose.cond import choose_cond, choose_denoise
    from nelbo.compose.trained import read_model
    from nelbo.evaluation.generation import SampleGenerator
    from nelbo.runs.sample_folder import SampleFolder

    if config.image_format == "none" and config.devices > 1:
        raise ValueError("format=none needs devices=1: the samples of other processes would not be kept")
    if run_on_ranks(config):
        return
    model = read_model(config)
    sampler = build_sampler(config, model.spec)
    spacing: Spacing | partial[Spacing] = instantiate(config.spacing)
    features: Features | None = instantiate(config.features) if config.get("features") else None
    image_format = choose_format(config, model.spec)
    check_trajectory(config.trajectory, config.grid, model.spec)
    cond = choose_cond(config, model)
    denoise = choose_denoise(config.guidance, model)
    processes = start_processes(config.device, config.devices)
    model.module.to(processes.device)
    chain = choose_chain(config, model, spacing, sampler.steps, processes)
    generator = SampleGenerator(
        model.spec.shape, sampler, denoise, chain, cond, config.seed, processes.device
    )
    metadata = describe(config, model, generator, image_format)

    def open_folder() -> SampleFolder:
        return SampleFolder(Path(config.run_dir), metadata, image_format, model.spec, cond)

    # decided by one process: others could look after the first files are written
    missing = processes.broadcast(lambda: open_folder().missing(config.n))
    folder = open_folder()
    shown = min(config.grid, config.n) if model.spec.is_drawn else 0
    wanted = config.n if features is not None else shown
    kept = draw(generator, folder, missing, config.batch_size, wanted, processes)
    processes.barrier()
    if processes.rank == 0:
        images = folder.read(list(range(wanted))) if kept is None else kept
        written = write_images(config, folder, generator, images[:shown])
        quality: dict[str, float] = {}
        if features is not None:
            quality = measure_quality(config, model, features, images, processes.device, metadata)
        folder.finish(config.n)
        print_samples(folder, config.n, sampler.evaluations(chain), quality, config.reference_split, written)
    processes.close()


def choose_format(config: DictConfig, spec: "DataSpec") -> str:
    """``png``, ``npz`` or ``none``."""
    if config.image_format == "auto":
        return "png" if spec.fits_png else "npz"
    return config.image_format


def check_trajectory(trajectory: str, grid: int, spec: "DataSpec") -> None:
    """Check that a trajectory can be drawn.

    Raises:
        ValueError: for data that is not drawn, or no samples in the grid.
    """
    if trajectory == "none":
        return
    if not spec.is_drawn:
        raise ValueError(
            f"trajectory={trajectory} draws the samples, and data of shape {spec.shape} is not drawn: "
            "use trajectory=none"
        )
    if grid == 0:
        raise ValueError(f"trajectory={trajectory} shows the samples of the grid, and grid=0: use grid=64")


def choose_chain(
    config: DictConfig,
    model: "TrainedModel",
    spacing: "Spacing | partial[Spacing]",
    steps: int | None,
    processes: "Processes",
) -> "Chain":
    """Set the reverse variance that the command chooses, and return the chain of the sampler's steps.

    Raises:
        ValueError: for a variance that the network does not have, or more steps than there are timesteps.
    """
    from nelbo.compose.reverse_variance import choose_variance
    from nelbo.compose.shorter_chain import spaced_chain, step_costs
    from nelbo.compose.trained import read_data

    bound = model.module.bound
    choose_variance(config, model, bound, lambda: read_data(model), "val", processes)
    return spaced_chain(
        spacing,
        bound.chain.schedule,
        steps,
        lambda: step_costs(model, bound, read_data(model), "val", processes),
    )


def describe(
    config: DictConfig, model: "TrainedModel", generator: "SampleGenerator", image_format: str
) -> dict[str, object]:
    """Everything that the samples depend on. A folder accepts only samples of the same description."""
    import torch

    from nelbo.compose.config import to_plain
    from nelbo.compose.measurements import denoiser_options

    clip, chain = generator.sampler.clip, generator.chain
    variance = model.module.denoiser.variance
    return {
        "weights": model.fingerprint,
        "denoiser": denoiser_options(model),
        "sampler": {**to_plain(config.sampler), "clip": clip and list(clip)},
        "variance": f"{type(variance).__name__}, first step {variance.first_step}",
        "timesteps": chain.t().tolist(),
        "logsnr": chain.level(torch.arange(1, chain.num_steps + 1)).logsnr.tolist(),
        "cond": describe_cond(config, model),
        "guidance": config.guidance,
        "seed": config.seed,
        "levels": model.spec.levels,
        "format": image_format,
    }


def describe_cond(config: DictConfig, model: "TrainedModel") -> object:
    """How conditions are assigned to the samples; None for an unconditional model."""
    from omegaconf import OmegaConf

    if config.cond is not None:
        return OmegaConf.to_container(config.cond) if OmegaConf.is_config(config.cond) else config.cond
    if not model.module.conditional:
        return None
    if model.spec.cond is not None:
        return "those of training examples"
    return "proportions of the data" if config.get("features") else "all classes in turn"


def draw(
    generator: "SampleGenerator",
    folder: "SampleFolder",
    missing: list[int],
    batch_size: int,
    wanted: int,
    processes: "Processes",
) -> "Tensor | None":
    """Draw this process's part of the missing samples, and add them to the folder.

    Returns:
        The first ``wanted`` samples, (wanted, ...) as they are stored, where they are not written; else None.
    """
    import torch

    from nelbo.cli.overrides import as_typed
    from nelbo.progress import counted

    mine = missing[processes.rank :: processes.count]
    kept: list[Tensor] = []
    with counted("drawing samples", shown=processes.rank == 0) as progress:
        try:
            for begin in range(0, len(mine), batch_size):
                numbers = mine[begin : begin + batch_size]
                x0 = generator(numbers)
                folder.add(numbers, x0)
                if folder.image_format == "none":
                    kept.append(folder.to_stored(x0)[: max(wanted - begin, 0)])
                progress(begin + len(numbers), len(mine))
        except KeyboardInterrupt:
            if processes.rank == 0 and folder.image_format != "none":
                again = as_typed("hydra.run.dir", str(folder.path))
                print(f"finished samples are kept; resume with the same command and {again}", file=sys.stderr)
            raise
    return torch.cat(kept) if kept else None


def write_images(
    config: DictConfig, folder: "SampleFolder", generator: "SampleGenerator", images: "Tensor"
) -> list[Path]:
    """Write grid.png of the first samples, and their trajectory as an animation or a strip.

    Returns:
        The paths of the files.
    """
    from nelbo.runs import images as grids

    if len(images) == 0:
        return []
    numbers = list(range(len(images)))
    values = folder.spec.from_levels(images)
    first = folder.path / "grid.png"
    grids.save_png(first, grids.grid(folder.spec.to_pixels(values)))
    if config.trajectory == "none":
        return [first]
    frames: list[Tensor] = []
    numbers = numbers if config.trajectory == "gif" else numbers[:STRIP_ROWS]

    def keep(x: "Tensor") -> None:
        frames.append(folder.spec.to_pixels(x).cpu())

    keep(generator(numbers, lambda step, xt, prediction: keep(xt)))
    trajectory = folder.path / ("trajectory.gif" if config.trajectory == "gif" else "trajectory.png")
    if config.trajectory == "gif":
        grids.save_gif(trajectory, frames)
    else:
        grids.save_png(trajectory, grids.strip(frames))
    return [first, trajectory]


def measure_quality(
    config: DictConfig,
    model: "TrainedModel",
    features: "Features",
    images: "Tensor",
    device: "torch.device",
    metadata: dict[str, object],
) -> dict[str, float]:
    """How far samples are from the model's data, and quality.json about it."""
    from nelbo.compose.trained import read_data
    from nelbo.evaluation.sample_metrics.quality import quality_ledger, sample_quality
    from nelbo.evaluation.sample_metrics.reference import make_reference

    reference = make_reference(read_data(model), config.reference_split, features, device=device)
    quality = sample_quality(images, reference, features)
    ledger = quality_ledger(reference, len(images), **metadata)
    write_json(Path(config.run_dir) / "quality.json", {**quality, "ledger": ledger})
    return quality


def print_samples(
    folder: "SampleFolder",
    n: int,
    evaluations: int,
    quality: dict[str, float],
    reference_split: str,
    images: list[Path],
) -> None:
    """Print how the samples were drawn, their quality, and the paths of the files."""
    from nelbo.reports.terminal import make_console, print_fact

    console = make_console()
    console.print(f"{n:,} samples, {evaluations} network evaluations each")
    for name, value in quality.items():
        print_fact(console, f"{name:<17}", f"{value:.4f} against the {reference_split} split")
    print_fact(console, "samples", folder.path)
    for path in images:
        print_fact(console, "image", path)
