"""The position of the loader in a real Trainer: advanced, saved and restored."""

import gc
import json
import multiprocessing
import pathlib
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from nelbo.data import DataModule, DataSpec
from nelbo.data.examples import TensorExamples

# Lightning's advice about the many checkpoints in one folder
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec")


class Numbers(DataModule):
    def __init__(self, num_workers=0):
        super().__init__(batch_size=4, eval_batch_size=4, num_workers=num_workers, seed=7)

    @property
    def spec(self):
        return DataSpec(shape=(1,), levels=256, num_classes=None)

    def read_split(self, name):
        return TensorExamples(torch.arange(14, dtype=torch.uint8)[:, None])


class Recorder(lightning.LightningModule):
    """Records its batches; may fail in the middle of a step."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fail_at = fail_at
        self.seen = []
        self.validated = []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise RuntimeError("interrupted")
        assert batch.x0.dtype == torch.float32
        assert batch.x0.abs().max() <= 1
        self.seen.append((self.global_step, self.current_epoch, batch_idx, batch.index.tolist()))
        return (self.weight * batch.x0).mean()

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.validated.append((self.current_epoch, batch.index.tolist()))

    def on_fit_end(self):
        if self.trainer.world_size > 1:  # the process ends with the run
            seen = json.dumps({"seen": self.seen, "validated": self.validated})
            path = pathlib.Path(self.trainer.default_root_dir, f"rank{self.global_rank}.json")
            path.write_text(seen)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *, num_workers=0, resume=None, fail_at=None, epochs=3, **options):
    model = Recorder(fail_at)
    every_step = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    on_exception = [] if fail_at is None else [OnExceptionCheckpoint(folder, "failed")]
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[every_step, *on_exception, *options.pop("callbacks", [])],
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, datamodule=Numbers(num_workers), ckpt_path=resume)
    return model


def test_each_epoch_has_its_own_order_and_runs_agree(tmp_path):
    first, second = fit(tmp_path / "a").seen, fit(tmp_path / "b").seen
    assert first == second
    assert [step[:3] for step in first] == [(3 * e + i, e, i) for e in range(3) for i in range(3)]
    orders = [[i for _, e, _, batch in first if e == epoch for i in batch] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(len(set(order)) == 12 for order in orders)


def test_validation_sees_every_example_in_every_epoch(tmp_path):
    validated = fit(tmp_path).validated
    for epoch in range(3):
        assert [i for e, batch in validated if e == epoch for i in batch] == list(range(14))


def test_resuming_after_any_step_is_exact(tmp_path):
    seen = fit(tmp_path).seen
    for step in range(1, 9):
        resumed = fit(tmp_path / "again", resume=tmp_path / f"step={step}.ckpt")
        assert resumed.seen == seen[step:], f"after step {step}"


def test_workers_change_nothing(tmp_path):
    seen = fit(tmp_path).seen
    assert fit(tmp_path / "workers", num_workers=2).seen == seen
    resumed = fit(tmp_path / "again", num_workers=2, resume=tmp_path / "workers/step=4.ckpt")
    assert resumed.seen == seen[4:]
    gc.collect()  # the iterators of the loaders end their workers
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 1}])
def test_resuming_from_a_checkpoint_of_validation_is_exact(tmp_path, options):
    after_validation = ModelCheckpoint(tmp_path, "val-{step}", save_top_k=-1, monitor=None)
    seen = fit(tmp_path, callbacks=[after_validation], **options).seen
    for step in (3, 6):
        checkpoint = tmp_path / f"val-step={step}.ckpt"
        assert fit(tmp_path / "again", resume=checkpoint, **options).seen == seen[step:]


@pytest.mark.parametrize("step", range(7))
def test_an_interrupted_step_is_repeated(tmp_path, step):
    seen = fit(tmp_path / "whole").seen
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, fail_at=step)
    resumed = fit(tmp_path / "again", resume=tmp_path / "failed.ckpt")
    assert resumed.seen == seen[step:]
    # the epoch is whole again, so it ends in a validation
    assert {epoch for epoch, _ in resumed.validated} == set(range(step // 3, 3))


def test_an_epoch_cut_short_is_followed_by_the_next(tmp_path):
    whole, cut = fit(tmp_path / "a").seen, fit(tmp_path / "b", limit_train_batches=2).seen
    assert [batch for *_, batch in cut] == [batch for _, _, i, batch in whole if i < 2]


@pytest.mark.slow
def test_two_processes_have_the_examples_of_one(tmp_path):
    alone = fit(tmp_path / "alone")
    fit(tmp_path, default_root_dir=tmp_path, strategy="ddp_fork", devices=2)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    steps = zip(ranks[0]["seen"], ranks[1]["seen"], strict=True)
    assert [(*a[:3], a[3] + b[3]) for a, b in steps] == alone.seen
    for epoch in range(3):
        seen = [i for rank in ranks for e, batch in rank["validated"] if e == epoch for i in batch]
        assert sorted(seen) == list(range(14))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(20, 1), "torch.float32 values of .*whole numbers from 0 to 255"),
        (torch.full((20, 1), 300), "values of 300 to 300; with spec.levels=256"),
        (torch.zeros(20, 1, 4, dtype=torch.uint8), r"examples of shape \(1, 4\), but spec.shape is \(1,\)"),
    ],
)
def test_examples_that_contradict_the_spec_raise(x, message, monkeypatch):
    monkeypatch.setattr(Numbers, "read_split", lambda self, name: TensorExamples(x))
    with pytest.raises(ValueError, match=f"the train split of Numbers has .*{message}"):
        Numbers().setup()


def test_a_split_that_is_too_small_for_the_processes_is_named():
    data = Numbers()
    data.trainer = SimpleNamespace(global_rank=0, world_size=15)
    with pytest.raises(ValueError, match="14 examples in the val split are too few for 15 processes"):
        data.val_dataloader()


def test_labels_of_any_integer_type_reach_the_model_as_int64():
    class Labelled(Numbers):
        def read_split(self, name):
            return TensorExamples(torch.zeros(14, 1, dtype=torch.uint8), torch.arange(14, dtype=torch.uint8))

    data = Labelled()
    batch = data.on_after_batch_transfer(next(iter(data.eval_dataloader("val"))))
    assert batch.cond.dtype == torch.int64
    assert batch.cond.tolist() == [0, 1, 2, 3]
