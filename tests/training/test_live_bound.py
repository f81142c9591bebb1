"""The bound of the training batches, compared with known draws and with a full evaluation."""

from itertools import pairwise
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback

from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import FullEstimator
from nelbo.training.callbacks import LiveBound

K = 20


class Strategy:
    @staticmethod
    def reduce(tensor, reduce_op):
        assert reduce_op == "sum"
        return tensor


def watched(tiny_run, tmp_path, monkeypatch):
    """A live bound, its module, a Trainer that logs every second step, and the logged metrics."""
    module = tiny_run(f"schedule.num_steps={K}").module
    logged = []
    monkeypatch.setattr(module, "log", lambda name, value, **options: logged.append({name: float(value)}))
    monkeypatch.setattr(module, "log_dict", logged.append)
    trainer = SimpleNamespace(
        global_step=0,
        log_every_n_steps=2,
        accumulate_grad_batches=1,
        strategy=Strategy(),
        is_global_zero=True,
    )
    callback = LiveBound(str(tmp_path))
    callback.on_train_start(trainer, module)
    return callback, trainer, module, logged


def batches(n):
    """Batches drawn unevenly, p_i proportional to i, with their importance weights."""
    generator = torch.Generator().manual_seed(0)
    p = torch.arange(1.0, K + 1, dtype=torch.float64)
    p /= p.sum()
    for _ in range(n):
        index = torch.multinomial(p, 16, replacement=True, generator=generator) + 1
        yield {
            "loss": torch.rand((), generator=generator),
            "index": index,
            "weight": 1 / (K * p[index - 1]),
            "bound": torch.rand(16, generator=generator) + index,
            "prior": torch.rand(16, generator=generator),
        }


def test_scalars_are_weighted_and_windows_do_not_overlap(tiny_run, tmp_path, monkeypatch):
    callback, trainer, module, logged = watched(tiny_run, tmp_path, monkeypatch)
    given = list(batches(4))
    for step, outputs in enumerate(given, start=1):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, outputs, None, step)
    per_nat = module.unit.per_nat
    for window, (first, second) in enumerate([given[:2], given[2:]]):
        metrics = {}
        for entry in logged[len(logged) // 2 * window : len(logged) // 2 * (window + 1)]:
            metrics |= entry
        joined = {key: torch.cat([first[key], second[key]]) for key in ("index", "weight", "bound", "prior")}
        sample = K * joined["weight"] * joined["bound"].double()
        first_step = joined["index"] == 1
        assert metrics["train/L_0"] == pytest.approx(float((sample * first_step).mean()) * per_nat, rel=1e-9)
        assert metrics["train/L_t"] == pytest.approx(float((sample * ~first_step).mean()) * per_nat, rel=1e-9)
        assert metrics["train/L_T"] == pytest.approx(float(joined["prior"].mean()) * per_nat, rel=1e-6)
        total = float((sample + joined["prior"]).mean()) * per_nat
        assert metrics["train/bpd"] == pytest.approx(total, rel=1e-6)
        assert metrics["train/loss"] == pytest.approx(float(first["loss"] + second["loss"]) / 2, rel=1e-6)


def test_the_table_has_unweighted_means(tiny_run, tmp_path, monkeypatch):
    callback, trainer, module, _ = watched(tiny_run, tmp_path, monkeypatch)
    given = list(batches(3))
    for step, outputs in enumerate(given, start=1):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, outputs, None, step)
    callback.on_validation_start(trainer, module)
    callback.on_train_end(trainer, module)  # nothing is left
    index = torch.cat([outputs["index"] for outputs in given])
    nats = torch.cat([outputs["bound"] for outputs in given]).double()
    rows = pq.read_table(tmp_path / "bound.parquet").to_pylist()
    assert [row["t"] for row in rows] == index.unique().tolist()
    for row in rows:
        mine = nats[index == row["t"]]
        assert row["count"] == len(mine)
        assert row["sum"] == pytest.approx(float(mine.sum()), rel=1e-12)
        assert row["sum_of_squares"] == pytest.approx(float(mine.square().sum()), rel=1e-12)
    assert {(row["step"], row["split"]) for row in rows} == {(3, "train")}


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_sums_of_two_ranks_are_restored_by_one_or_two(world_size, tiny_run, tmp_path, monkeypatch):
    def sums(factor: float) -> dict[str, torch.Tensor]:
        empty = BoundAccumulator(K).sums
        numbers = {name: factor * torch.arange(1.0, x.numel() + 1).view_as(x) for name, x in empty.items()}
        return {name: x.double().expand(2, *x.shape) for name, x in numbers.items()}

    saved = {"window": sums(1.0), "steps": sums(10.0), "loss": torch.tensor([[3.0, 4.0]] * 2)}
    callback, trainer, module, _ = watched(tiny_run, tmp_path, monkeypatch)
    trainer.world_size, trainer.global_rank = world_size, 0
    callback.on_load_checkpoint(trainer, module, {"live_bound": saved})
    callback.on_train_start(trainer, module)
    ranks = 2 // world_size  # one rank receives the sums of both
    steps = torch.arange(1.0, K + 1, dtype=torch.float64)
    assert torch.equal(callback._window.sums["count"], ranks * steps)
    assert torch.equal(callback._steps.sums["nats"], 10 * ranks * steps)
    assert callback._steps.num_evaluations == 10 * ranks
    assert callback._loss.tolist() == [3.0 * ranks, 4.0 * ranks]


class Perturb(Callback):
    """Weights away from the start, where the output is 0 whatever the input."""

    def on_train_start(self, trainer, pl_module) -> None:
        generator = torch.Generator().manual_seed(0)
        for parameter in pl_module.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(["objective=simple"], marks=pytest.mark.slow),
        ["loss=vlb", "timesteps=importance"],
        pytest.param(["loss=hybrid", "timesteps=importance"], marks=pytest.mark.slow),
        pytest.param(["loss=vlb", "variance=learned_range", "timesteps=uniform"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_without_learning_it_is_the_bound_of_the_training_data(choices, tiny_run):
    """Four epochs of batches, and then every term of every example, of the same weights."""
    steps = 44
    run = tiny_run(
        f"schedule.num_steps={K}",
        "optimizer.lr=0",
        "data.batch_size=128",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        f"trainer.log_every_n_steps={steps}",
        *choices,
        callbacks=[Perturb()],
    )
    run.fit()
    live = {name: float(value) for name, value in run.trainer.callback_metrics.items()}

    module, data = run.module, run.data
    examples = data.split("train")
    accumulator, n = BoundAccumulator(K), len(examples)
    with torch.no_grad():
        batch = data.on_after_batch_transfer(examples.fetch(torch.arange(n), 0))
        variant = BoundVariant(module.bound)
        FullEstimator().measure([accumulator], [variant], module.denoiser, batch.x0, batch.index, None, n)
    full = module.unit.metrics("train", accumulator.estimate())
    for part in ("bpd", "L_0", "L_t"):
        gap = live[f"train/{part}"] - full[f"train/{part}"]
        error = (live[f"train/{part}_stderr"] ** 2 + full[f"train/{part}_stderr"] ** 2) ** 0.5
        assert abs(gap) < 4 * error, part
        assert error < 0.2 * full["train/bpd"], "so large that it says nothing"

    rows = pq.read_table(run.folder / "bound.parquet").to_pylist()
    table = accumulator.step_table(torch.arange(1, K + 1))
    train = [row for row in rows if row["split"] == "train"]
    assert [row["t"] for row in train] == list(range(1, K + 1))
    assert sum(row["count"] for row in train) == steps * 128
    for row, mean, full_error in zip(train, table.mean, table.stderr, strict=True):
        own = row["sum"] / row["count"]
        spread = max(row["sum_of_squares"] / row["count"] - own**2, 0.0)
        error = (spread / row["count"] + float(full_error) ** 2) ** 0.5
        assert abs(own - float(mean)) < 5 * error, row["t"]
    if "timesteps=importance" in choices:  # otherwise nothing was weighted
        counts = sorted(row["count"] for row in train)
        assert counts[-1] > 2 * counts[0]
    assert all(a["t"] < b["t"] for a, b in pairwise(train))
