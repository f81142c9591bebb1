"""The evaluation job: measure the bound of a trained model and write evaluation.json and bound.parquet."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

if TYPE_CHECKING:
    from nelbo.compose.trained import TrainedModel
    from nelbo.data import DataModule
    from nelbo.data.base import SplitName
    from nelbo.diffusion.bound import VariationalBound
    from nelbo.evaluation.evaluation import Evaluation
    from nelbo.evaluation.image_codecs import CodedSize


def evaluate(config: DictConfig) -> None:
    """Measure one model on one split.

    Raises:
        ValueError: for a checkpoint that cannot be read, data that the model is not for, options that
            cannot work, or, after the other results are written, a likelihood that is not accurate enough.
        OSError: for data that cannot be read, or a folder that cannot be written.
    """
    from hydra.utils import instantiate

    from nelbo.cli.processes import run_on_ranks, start_processes
    from nelbo.compose.likelihoods import build_likelihoods
    from nelbo.compose.measurements import split_to_measure
    from nelbo.compose.reverse_variance import choose_variance, other_variances
    from nelbo.compose.shorter_chain import shorter_chain
    from nelbo.compose.trained import read_model
    from nelbo.evaluation.evaluation import Evaluation
    from nelbo.evaluation.image_codecs import check_images
    from nelbo.evaluation.likelihoods import Sandwich
    from nelbo.evaluation.measure_split import measure_likelihoods, measure_split
    from nelbo.progress import counted
    from nelbo.reports.evaluation_progress import evaluation_progress

    if run_on_ranks(config):
        return
    model = read_model(config)
    data = choose_data(config, model)
    bound = choose_bound(config, model, data)
    estimator = instantiate(config.estimator)
    likelihoods = build_likelihoods(config, data.spec)
    for likelihood in likelihoods.values():
        likelihood.check_levels(data.spec.levels)
        if config.steps is None:
            likelihood.check_chain(bound.chain)
    if config.baselines:
        check_images(data.spec)
    check_even_batches(data, config.devices)
    read_examples(config, data)
    processes = start_processes(config.device, config.devices)
    module = model.module.to(processes.device)

    # both may need measurements on other examples first
    learn_from = split_to_measure(config.split)
    own = module.denoiser.variance
    choose_variance(config, model, bound, lambda: data, learn_from, processes)
    bound = shorter_chain(config, model, bound, data, processes)
    others = other_variances(module.denoiser.variance, own, bound.chain)

    with evaluation_progress(estimator, module.unit, shown=processes.rank == 0) as show:
        measurements, ledgers = measure_split(
            data,
            config.split,
            denoiser=module.denoiser,
            bound=bound,
            others=others,
            estimator=estimator,
            unit=module.unit,
            conditional=module.conditional,
            weights=model.weights.kind,
            processes=processes,
            progress=show,
        )
    mean = measurements[0].estimate.total.mean
    if not math.isfinite(mean):
        raise ValueError(
            f"the bound of {model.path} on the {config.split} split is {mean}: the model has diverged"
        )
    found, problems = measure_likelihoods(
        likelihoods,
        data,
        config.split,
        denoiser=module.denoiser,
        bound=bound,
        bound_ledger=ledgers[0],
        unit=module.unit,
        conditional=module.conditional,
        processes=processes,
        progress=lambda label: counted(label, shown=processes.rank == 0),
    )
    of_samples = [name for name, likelihood in likelihoods.items() if isinstance(likelihood, Sandwich)]
    if processes.rank == 0:
        evaluation = Evaluation(
            split=config.split,
            unit=module.unit,
            chain=bound.chain,
            measurements=measurements,
            ledgers=ledgers,
            checkpoint=model.path.resolve(),
            step=model.weights.step,
            config=module.config,
            label=data.split(config.split).label,
            class_names=data.class_names,
            shortfall=estimator.shortfall(measurements[0].estimate, module.unit),
            likelihoods={name: found[name] for name in found if name not in of_samples},
            on_samples={name: found[name] for name in found if name in of_samples},
            baselines=measure_baselines(data, config.split) if config.baselines else {},
        )
        searched = config.steps is not None and bool((config.get("spacing") or {}).get("_partial_"))
        write(evaluation, Path(config.run_dir), config.by_class, searched)
    processes.close()
    if problems and processes.rank == 0:  # the other results are written
        raise ValueError("; ".join(map(str, problems)))


def measure_baselines(data: "DataModule", split: "SplitName") -> "dict[str, CodedSize]":
    """The size of the images of a split in lossless formats, by name."""
    import torch

    from nelbo.evaluation.image_codecs import coded_sizes
    from nelbo.progress import counted

    examples = data.split(split)
    images = examples.fetch(torch.arange(len(examples)), 0).x0
    with counted("measuring image formats") as show:
        return coded_sizes(images, show)


def write(evaluation: "Evaluation", run_dir: Path, by_class: bool, searched: bool) -> None:
    """Write the files of an evaluation and its report, and print the results."""
    from nelbo.reports.evaluation import print_evaluation
    from nelbo.reports.html import report_finished_run
    from nelbo.runs.evaluation_file import write_evaluation

    write_evaluation(evaluation, run_dir)
    try:
        report_finished_run(run_dir)
    finally:
        print_evaluation(evaluation, run_dir, by_class, searched)


def choose_data(config: DictConfig, model: "TrainedModel") -> "DataModule":
    """The data set that the command chooses, by default that of the model.

    Raises:
        ValueError: for data of another kind than the model was trained on.
    """
    from hydra.utils import instantiate

    from nelbo.compose.trained import match_classes, set_root

    _check_no_network(config)
    if config.get("data") is None:
        data = instantiate(model.config.data)
        match_classes(data, model)
        return data
    if config.root is not None:
        set_root(config.data, config.root)
    data: DataModule = instantiate(config.data)
    match_classes(data, model)
    if (data.spec.shape, data.spec.levels) != (model.spec.shape, model.spec.levels):
        raise ValueError(
            f"the model is for data of shape {model.spec.shape} with {model.spec.levels or 'continuous'} "
            f"levels, and {type(data).__name__} has shape {data.spec.shape} with "
            f"{data.spec.levels or 'continuous'} levels"
        )
    return data


def _check_no_network(config: DictConfig) -> None:
    """Check that no network was chosen. A data set that is chosen selects one, which is not used.

    Raises:
        ValueError: for ``model=`` or ``model.…=``.
    """
    from hydra.core.hydra_config import HydraConfig

    from nelbo.cli.overrides import option_name

    typed = map(option_name, HydraConfig.get().overrides.task)
    is_typed = any(name.partition(".")[0] == "model" for name in typed)
    if is_typed or (config.get("model") is not None and config.get("data") is None):
        raise ValueError("model=...: the network is the checkpoint's; there is nothing to choose")


def read_examples(config: DictConfig, data: "DataModule") -> None:
    """Read the split that is measured, or a subset of it.

    Raises:
        ValueError: for classes that the data does not have.
        OSError: for data that cannot be read.
    """
    data.prepare_data()
    if config.max_examples is not None:
        data.subset(config.split, config.max_examples)
    if config.by_class and data.split(config.split).label is None:
        raise ValueError(f"by_class=true, but {type(data).__name__} has no classes")


def choose_bound(config: DictConfig, model: "TrainedModel", data: "DataModule") -> "VariationalBound":
    """The bound over all timesteps of the model, with the decoder and clipping of this command.

    Raises:
        ValueError: for clipping of data that has no range.
    """
    from hydra.utils import instantiate

    # the configuration of a data set names its decoder; the default is the decoder of the model
    decoder = instantiate(config.decoder, levels=data.spec.levels) if config.get("decoder") else None
    return model.bound(config.clip, "clip=true", decoder)


def check_even_batches(data: "DataModule", devices: int) -> None:
    """Check that the processes can divide a batch evenly.

    Raises:
        ValueError: for a number of processes that does not divide the batch.
    """
    if devices > 1 and data.eval_batch_size % devices:
        raise ValueError(
            f"devices={devices} do not share a batch of {data.eval_batch_size} evenly: use a number that "
            "divides it"
        )
