"""The evaluation job: measure the bound of a trained model and write evaluation.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import torch

    from nelbo.data import Batch, DataModule
    from nelbo.data.base import SplitName
    from nelbo.evaluation.tally import BoundTally
    from nelbo.training.module import DiffusionModule


def evaluate(config: DictConfig) -> None:
    """Measure one model on one split.

    Raises:
        ValueError: for a checkpoint that cannot be read, or data that the model is not for.
        OSError: for data that cannot be read, or a folder that cannot be written.
    """
    import torch
    from hydra.utils import instantiate

    from nelbo.app.checkpoint import config_of, read_checkpoint, restore_module
    from nelbo.app.quiet import quieten_libraries
    from nelbo.dashboard.progress import EvaluationProgress
    from nelbo.dashboard.terminal import print_bound
    from nelbo.evaluation.ledger import make_ledger
    from nelbo.evaluation.measure import measure

    quieten_libraries()
    torch.set_float32_matmul_precision("high")
    if OmegaConf.is_missing(config, "checkpoint"):
        raise ValueError("which model? checkpoint=outputs/.../checkpoints/last.ckpt")
    path, run_dir = Path(config.checkpoint), Path(config.run_dir)
    checkpoint = read_checkpoint(path)
    trained = config_of(checkpoint)
    if config.root is not None:
        trained.data.root = config.root
    data: DataModule = instantiate(trained.data)
    module = restore_module(checkpoint, trained, data.spec, config.weights, path)
    device = device_of(config.device)
    module.to(device)
    if config.clip:
        if data.spec.levels is None:
            raise ValueError("clip=true needs data with a range, and this data is continuous")
        module.bound.clip = (data.spec.low, data.spec.high)

    data.prepare_data()
    examples = data.split(config.split)
    estimator = instantiate(config.estimator)
    with EvaluationProgress(estimator, module.unit) as progress:
        estimate, tally = measure(
            estimator,
            module.bound,
            module.denoiser,
            Batches(data, config.split, device),
            len(examples),
            module.unit,
            device,
            module.conditional,
            progress.show,
        )
    metrics = module.unit.metrics(config.split, estimate)
    ledger = make_ledger(
        data=type(data).__name__,
        dims=data.spec.dims,
        levels=data.spec.levels,
        split=config.split,
        weights=config.weights if "current_model_state" in checkpoint else "raw",
        bound=module.bound,
        variance=module.denoiser.variance,
        estimator=estimator,
        estimate=estimate,
    )
    result = {
        **metrics,
        "network_evaluations": estimate.num_evaluations,
        "ledger": ledger.to_dict(),
        "checkpoint": str(path.resolve()),
        "steps": step_rows(module, tally),
    }
    file = run_dir / "evaluation.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    print_bound(metrics, (config.split,), module.unit, run_dir)


class Batches:
    """A split of a data set, batch by batch, on a device and in values."""

    def __init__(self, data: "DataModule", split: "SplitName", device: "torch.device") -> None:
        self.data = data
        self.split: SplitName = split
        self.device = device

    def __iter__(self) -> "Iterator[Batch]":
        for batch in self.data.eval_dataloader(self.split):
            moved = batch._replace(
                x0=batch.x0.to(self.device),
                label=None if batch.label is None else batch.label.to(self.device),
            )
            yield self.data.on_after_batch_transfer(moved)


def device_of(name: str) -> "torch.device":
    """The device of a name; ``auto`` is a GPU where there is one.

    Raises:
        ValueError: for a device that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}: there is no GPU; use device=cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name}: expected auto, cpu or cuda") from error


def step_rows(module: "DiffusionModule", tally: "BoundTally") -> list[dict[str, float]]:
    """L_t against t in the unit of the bound, one row per step that was drawn."""
    table, t = tally.step_table(), module.bound.chain.timesteps()
    columns = {
        "t": t.double(),
        "mean": table.mean * module.unit.per_nat,
        "stderr": (table.stderr * module.unit.per_nat).nan_to_num(),
        "count": table.count,
        "rmse": table.rmse,
    }
    drawn = table.count > 0
    values = zip(*(column[drawn].tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
