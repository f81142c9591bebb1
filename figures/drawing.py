"""Samples of a trained model, generated as by sample.py."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from nelbo.cli.processes import start_processes
from nelbo.compose.build import build_sampler
from nelbo.compose.cond import choose_cond, choose_denoise
from nelbo.compose.config import CONFIG_DIR
from nelbo.compose.shorter_chain import spaced_chain, step_costs
from nelbo.compose.trained import TrainedModel, read_data, read_model
from nelbo.evaluation.generation import SampleGenerator

BATCH = 360


def checkpoint_of_the_command_line(description: str | None) -> Path:
    """The path given by ``--checkpoint``, for a figure of one model."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path)
    return parser.parse_args().checkpoint


def options(checkpoint: Path, *overrides: str) -> DictConfig:
    """The configuration of ``python sample.py checkpoint=... <overrides>``."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("sample", overrides=[f"checkpoint={checkpoint}", *overrides])


def read(checkpoint: Path) -> TrainedModel:
    """The model of a checkpoint, with its averaged weights."""
    return read_model(options(checkpoint))


def make_generator(config: DictConfig, model: TrainedModel) -> SampleGenerator:
    """A generator of the samples of ``sample.py`` by number."""
    processes = start_processes("cpu", 1)
    sampler, spacing = build_sampler(config, model.spec), instantiate(config.spacing)
    bound = model.module.bound
    chain = spaced_chain(
        spacing,
        bound.chain.schedule,
        sampler.steps,
        lambda: step_costs(model, bound, read_data(model), "val", processes),
    )
    cond, denoise = choose_cond(config, model), choose_denoise(config.guidance, model)
    return SampleGenerator(model.spec.shape, sampler, denoise, chain, cond, config.seed, processes.device)


def draw(generator: SampleGenerator, model: TrainedModel, n: int) -> Tensor:
    """The first n samples, (n, C, H, W) uint8 pixels."""
    parts = [generator(numbers.tolist()) for numbers in torch.arange(n).split(BATCH)]
    return model.spec.to_pixels(torch.cat(parts))
