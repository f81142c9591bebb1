"""The position in the data across a resume: what Lightning's loops count, and which batches follow."""

import pytest
from lightning import Callback

from nelbo.training import loop_state
from nelbo.training.errors import Interrupted

BATCHES = 4  # in an epoch: 1,437 examples by 350
STEPS = 10


class Positions(Callback):
    """All counters at the start of every batch; may interrupt the run there, or in a validation."""

    def __init__(self, stop_at: int | None = None, validate_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.validate_at = validate_at
        self.seen: list[tuple] = []
        self.validated: list[int] = []
        self.epochs: list[int] = []  # of the validations

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        loop = trainer.fit_loop.epoch_loop
        if trainer.global_step == self.stop_at and loop_state.begins_window(trainer):
            raise Interrupted(2, trainer.global_step)
        position = trainer.current_epoch, batch_idx, trainer.fit_loop.total_batch_idx, trainer.global_step
        steps = loop._batches_that_stepped, loop_state.begins_window(trainer)
        self.seen.append((*position, *steps, batch.index.tolist()))

    def on_validation_start(self, trainer, pl_module) -> None:
        self.validated.append(trainer.global_step)
        self.epochs.append(trainer.current_epoch)

    def on_validation_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.validate_at:
            raise Interrupted(2, trainer.global_step, in_validation=True)


def run_until(
    tiny_run, folder, accumulate, *options, stop_at=None, resume=False, validate_at=None
) -> Positions:
    positions = Positions(stop_at, validate_at)
    run = tiny_run(
        "data.batch_size=350",
        f"trainer.accumulate_grad_batches={accumulate}",
        f"trainer.max_steps={STEPS // accumulate}",
        "trainer.val_check_interval=3",
        *(f"callbacks.{name}=null" for name in ("samples", "best_checkpoint", "progress")),
        *options,
        callbacks=[positions],
        folder=folder,
    )
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "checkpoints/last.ckpt"
    try:
        run.trainer.fit(run.module, datamodule=run.data, ckpt_path=checkpoint if resume else None)
    except Interrupted:
        assert (stop_at, validate_at) != (None, None)
    return positions


# within an epoch, where a validation was due, at its end, and in a later epoch
@pytest.mark.parametrize(
    ("accumulate", "stops"),
    [
        (1, (2,)),
        pytest.param(1, (1, 3, 4, 5, 6, 8, 9), marks=pytest.mark.slow),
        pytest.param(2, (3,), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_continues_with_the_same_batches_and_counts(accumulate, stops, tiny_run, tmp_path):
    whole = run_until(tiny_run, tmp_path / "whole", accumulate)
    assert len(whole.seen) == STEPS
    for stop_at in stops:
        folder = tmp_path / str(stop_at)
        first = run_until(tiny_run, folder, accumulate, stop_at=stop_at)
        second = run_until(tiny_run, folder, accumulate, resume=True)
        assert len(first.seen) == stop_at * accumulate
        assert first.seen + second.seen == whole.seen
        assert first.validated + second.validated == whole.validated


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulate", "stops"),
    [(1, (4, 6, 10)), (2, (1, 5))],  # at the end of an epoch, within one, and at the end of the training
)
def test_a_run_that_is_stopped_in_a_validation_resumes_at_its_start(accumulate, stops, tiny_run, tmp_path):
    options = ("trainer.val_check_interval=2", "checkpoint_every=1")
    whole = run_until(tiny_run, tmp_path / "whole", accumulate, *options)
    for validate_at in stops:
        folder = tmp_path / str(validate_at)
        first = run_until(tiny_run, folder, accumulate, *options, validate_at=validate_at)
        second = run_until(tiny_run, folder, accumulate, *options, resume=True)
        assert len(first.seen) == validate_at * accumulate
        assert first.seen + second.seen == whole.seen
        assert first.validated[-1] == second.validated[0] == validate_at
        assert first.validated + second.validated[1:] == whole.validated
        assert first.epochs + second.epochs[1:] == whole.epochs


@pytest.mark.parametrize(
    ("done", "due", "epoch", "batch", "begun"),
    [
        (0, False, 0, 0, 0),
        (3, False, 0, 3, 1),
        (3, True, 0, 3, 1),
        (8, False, 2, 0, 2),
        (8, True, 1, 4, 2),  # the epoch ends after the validation
        (9, False, 2, 1, 3),
    ],
)
def test_normalize_sets_every_counter_from_the_number_of_batches(done, due, epoch, batch, begun):
    wrong = dict.fromkeys(("ready", "started", "processed", "completed"), 77)
    loops = {
        "epoch_loop.batch_progress": {
            "total": wrong | {"completed": done},
            "current": dict(wrong),
            "is_last_batch": True,
        },
        "epoch_loop.val_loop.batch_progress": {"total": dict(wrong), "current": dict(wrong)},
        "epoch_progress": {"total": dict(wrong), "current": dict(wrong)},
        "combined_loader": [],
    }
    checkpoint = {
        "loops": {"fit_loop": loops},
        loop_state.BATCHES_PER_EPOCH: BATCHES,
        loop_state.VALIDATION_DUE: due,
    }
    loop_state.normalize(checkpoint)
    batches = loops["epoch_loop.batch_progress"]
    assert set(batches["total"].values()) == {done}
    assert set(batches["current"].values()) == {batch}
    assert batches["is_last_batch"] is False
    validation = loops["epoch_loop.val_loop.batch_progress"]["total"]
    assert (validation["started"], validation["processed"]) == (due, 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    assert loops["epoch_progress"] == {"total": epochs, "current": epochs}
    assert loops["combined_loader"] == [{"epoch": epoch, "batches": batch}]
