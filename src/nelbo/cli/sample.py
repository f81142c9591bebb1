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
    from nelbo.diffusion.spacings import Spacing
    from nelbo.evaluation.generation import SampleGenerator
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
    import torch
    from hydra.utils import instantiate

    from nelbo.cli.claim_folder import check_unused_folder
    from nelbo.cli.launch import launch_ranks, needs_launch
    from nelbo.cli.logging import quieten_libraries
    from nelbo.cli.overrides import as_typed
    from nelbo.cli.processes import check_devices, start_processes
    from nelbo.compose.build import build_sampler
    from nelbo.compose.labels import choose_denoise, choose_labels
    from nelbo.compose.reverse_variance import choose_variance
    from nelbo.compose.shorter_chain import spaced_chain, step_costs
    from nelbo.compose.trained import read_data, read_model
    from nelbo.evaluation.fingerprint import fingerprint
    from nelbo.evaluation.generation import SampleGenerator
    from nelbo.progress import counted
    from nelbo.runs.sample_folder import SampleFolder

    quieten_libraries()
    torch.set_float32_matmul_precision("high")
    check_unused_folder(Path(config.run_dir), "sample")
    check_devices(config.device, config.devices)
    if needs_launch(config.devices):
        launch_ranks(config.devices)
        return
    model = read_model(config)
    sampler = build_sampler(config, model.spec)
    spacing: Spacing | partial[Spacing] = instantiate(config.spacing)
    features: Features | None = instantiate(config.features) if config.get("features") else None
    image_format = config.image_format
    if image_format == "auto":
        image_format = "png" if model.spec.fits_png else "npz"
    if image_format == "none" and config.devices > 1:
        raise ValueError("format=none needs devices=1: the samples of other processes would not be kept")
    labels = choose_labels(config, model)
    denoise = choose_denoise(config, model)
    processes = start_processes(config.device, config.devices)
    model.module.to(processes.device)
    choose_variance(config, model, model.module.bound, lambda: read_data(model), "val", processes)
    chain = spaced_chain(
        spacing,
        model.module.bound.chain.schedule,
        sampler.steps,
        lambda: step_costs(model, model.module.bound, read_data(model), "val", processes),
    )
    in_proportion = labels is not None and config.label is None and features is not None
    about = {
        "weights": fingerprint(model.weights.network),
        "sampler": {**config.sampler, "clip": sampler.clip and list(sampler.clip)},
        "variance": type(model.module.denoiser.variance).__name__,
        "timesteps": chain.timesteps().tolist(),
        "label": "proportions of the data" if in_proportion else config.label,
        "guidance": config.guidance,
        "seed": config.seed,
        "levels": model.spec.levels,
        "format": image_format,
    }

    def open_folder() -> SampleFolder:
        return SampleFolder(Path(config.run_dir), about, image_format, model.spec)

    # decided by one process: others could look after the first files are written
    missing = processes.broadcast(lambda: open_folder().missing(config.n))
    folder, mine = open_folder(), missing[processes.rank :: processes.count]
    shown = min(config.grid, config.n) if model.spec.is_image else 0
    wanted = config.n if features is not None else shown
    generator = SampleGenerator(
        model.spec.shape, sampler, denoise, chain, labels, config.seed, processes.device
    )
    kept: dict[int, Tensor] = {}
    with counted("drawing samples", shown=processes.rank == 0) as progress:
        try:
            for begin in range(0, len(mine), config.batch_size):
                numbers = mine[begin : begin + config.batch_size]
                x0 = generator(numbers)
                folder.add(numbers, x0)
                if image_format == "none":
                    stored = folder.to_stored(x0)
                    kept |= {i: image for i, image in zip(numbers, stored, strict=True) if i < wanted}
                progress(begin + len(numbers), len(mine))
        except KeyboardInterrupt:
            if processes.rank == 0 and image_format != "none":
                again = as_typed("hydra.run.dir", str(folder.path))
                print(f"finished samples are kept; resume with the same command and {again}", file=sys.stderr)
            raise
    processes.barrier()
    if processes.rank == 0:
        numbers = list(range(wanted))
        images = torch.stack([kept[i] for i in numbers]) if kept else folder.read(numbers)
        pictures = make_pictures(config, folder, generator, images[:shown])
        quality: dict[str, float] = {}
        if features is not None:
            quality = measure_quality(config, model, features, images, processes.device, about)
        folder.finish(config.n, labels)
        print_samples(folder, config.n, sampler.evaluations(chain), quality, config.reference_split, pictures)
    processes.close()


def make_pictures(
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
    picture = folder.path / "grid.png"
    grids.grid(folder.spec.to_pixels(values)).save(picture)
    if config.trajectory == "none":
        return [picture]
    frames: list[Tensor] = []
    numbers = numbers if config.trajectory == "gif" else numbers[:STRIP_ROWS]

    def keep(x: "Tensor") -> None:
        frames.append(folder.spec.to_pixels(x).cpu())

    keep(generator(numbers, lambda step, xt, prediction: keep(xt)))
    trajectory = folder.path / ("trajectory.gif" if config.trajectory == "gif" else "trajectory.png")
    if config.trajectory == "gif":
        grids.save_gif(trajectory, frames)
    else:
        grids.strip(frames).save(trajectory)
    return [picture, trajectory]


def measure_quality(
    config: DictConfig,
    model: "TrainedModel",
    features: "Features",
    images: "Tensor",
    device: "torch.device",
    about: dict[str, object],
) -> dict[str, float]:
    """How far samples are from the model's data, and quality.json about it."""
    from nelbo.compose.trained import read_data
    from nelbo.evaluation.sample_metrics.quality import quality_ledger, sample_quality
    from nelbo.evaluation.sample_metrics.reference import make_reference

    reference = make_reference(read_data(model), config.reference_split, features, device=device)
    quality = sample_quality(images, reference, features)
    ledger = quality_ledger(reference, len(images), **about)
    write_json(Path(config.run_dir) / "quality.json", {**quality, "ledger": ledger})
    return quality


def print_samples(
    folder: "SampleFolder",
    n: int,
    evaluations: int,
    quality: dict[str, float],
    reference_split: str,
    pictures: list[Path],
) -> None:
    """Print how the samples were drawn, their quality, and the paths of the files."""
    from nelbo.reports.terminal import make_console, print_fact

    console = make_console()
    console.print(f"{n:,} samples, {evaluations} network evaluations each")
    for name, value in quality.items():
        print_fact(console, f"{name:<17}", f"{value:.4f} against the {reference_split} split")
    print_fact(console, "samples", folder.path)
    for picture in pictures:
        print_fact(console, "image", picture)
