"""Write a checkpoint as a folder that diffusers.DDPMPipeline.from_pretrained opens and samples from."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nelbo.compose.trained import TrainedModel

PIPELINE_STEPS = 1000  # the default of DDPMPipeline
# parts of a configuration that describe the run; they are not exported
OF_THE_RUN = ("logger", "callbacks", "trainer", "sampler", "spacing", "features", "run_dir")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the arguments of ``python -m nelbo export``."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="of train.py")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new, or empty")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="averaged or raw; default: ema"
    )
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action="append",
        help="class or package that the checkpoint may name although conf/ does not; may be repeated",
    )
    parser.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub"
    )


def run(arguments: Namespace) -> None:
    """Write the folder, and print its path and how to load it."""
    from nelbo.cli.project import make_importable
    from nelbo.interop.diffusers.folder import check_unused
    from nelbo.interop.diffusers.hub import check_has_name, push

    if arguments.trust:
        make_importable([str(Path.cwd())])
    check_unused(arguments.folder)  # mistakes show now, and not when all else is done
    if arguments.push_to_hub is not None:
        check_has_name(arguments.push_to_hub)
    model = read(arguments.checkpoint, arguments.weights, arguments.trust)
    write(model, arguments.folder)
    print(arguments.folder)
    num_steps = model.module.bound.chain.schedule.num_steps
    if num_steps != PIPELINE_STEPS:
        print(f"T = {num_steps}: pipeline(num_inference_steps={num_steps}) takes all steps")
    if model.module.conditional:
        print(
            "the model is conditional, and DDPMPipeline passes no class: use its unet and scheduler directly"
        )
    if arguments.push_to_hub is not None:
        print(push(arguments.folder, arguments.push_to_hub))


def read(checkpoint: Path, weights: str, trust: list[str] | None = None) -> "TrainedModel":
    """The model of a checkpoint, with its averaged or its raw weights."""
    from nelbo.cli.logging import quieten_libraries
    from nelbo.interop.formats.nelbo import NelboFormat
    from nelbo.pretrained import load

    quieten_libraries()
    return load(
        checkpoint, weights=weights, trust=trust, checkpoint_format=NelboFormat(), device="cpu"
    ).trained


def write(model: "TrainedModel", folder: Path) -> None:
    """The folder, with the configuration that restores the same bound.

    Raises:
        ValueError: for a model without an equivalent in diffusers.
        OSError: when the folder cannot be written.
    """
    from nelbo.interop import to_diffusers

    spec = model.spec
    if not spec.is_image:
        raise ValueError(f"diffusers is for images, and this model is for data of shape {spec.shape}")
    to_diffusers(
        folder,
        model.module.denoiser,
        model.module.bound.chain.schedule,
        (spec.shape[1], spec.shape[2]),
        clip=None if spec.range is None else spec.range[1],
        config=portable(model.weights.config or {}),
        weights=model.weights.kind,
        step=model.weights.step,
        data=None if model.data is None else model.data.to_dict() | {"root": None},
    )


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that belong to the model, without folders of this machine."""
    kept = {name: node for name, node in config.items() if name not in OF_THE_RUN}
    data = {name: value for name, value in kept.get("data", {}).items() if name != "root"}
    return kept | {"data": data}
