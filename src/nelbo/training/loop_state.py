"""The position of a run in the data, restored exactly by Lightning's loops.

Lightning counts batches, epochs and logged steps in several places, and the saved counts depend on the hook
in which they are saved. Between two batches all of them follow from two numbers: the batches trained on so
far and the batches of an epoch. They are recomputed from these when a run is resumed. A checkpoint written at
the start of a validation stores ``validation_due``, and the resumed run begins with this validation.
"""

from typing import Any

from lightning import Trainer

from nelbo.training.accumulation import AccumulatingLoop

BATCHES_PER_EPOCH = "batches_per_epoch"
VALIDATION_DUE = "validation_due"


def save(trainer: Trainer, checkpoint: dict[str, Any], validation_due: bool) -> None:
    """Add the batches of an epoch to a checkpoint, and whether the run continues with a validation."""
    checkpoint[BATCHES_PER_EPOCH] = int(trainer.num_training_batches)
    checkpoint[VALIDATION_DUE] = validation_due


def normalize(checkpoint: dict[str, Any]) -> None:
    """Set all loop counters of a checkpoint to the state between two batches, in place.

    Where a validation is due, the epoch of the last batch has not ended, and the validation has started.
    """
    loops, due = checkpoint["loops"]["fit_loop"], checkpoint[VALIDATION_DUE]
    batches = loops["epoch_loop.batch_progress"]
    done, length = batches["total"]["completed"], checkpoint[BATCHES_PER_EPOCH]
    epoch, batch = divmod(done, length)
    if due and batch == 0:
        epoch, batch = epoch - 1, length
    for name in ("ready", "started", "processed", "completed"):
        batches["total"][name] = done
        batches["current"][name] = batch
        # an epoch has begun when it has trained on a batch
        begun = epoch + (name in ("ready", "started") and batch > 0)
        loops["epoch_progress"]["total"][name] = loops["epoch_progress"]["current"][name] = begun
    batches["is_last_batch"] = False
    none = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    loops["epoch_loop.val_loop.batch_progress"] = {
        "total": none | {"ready": int(due), "started": int(due)},
        "current": none,
        "is_last_batch": False,
    }
    loops["combined_loader"] = [{"epoch": epoch, "batches": batch}]


def begins_window(trainer: Trainer) -> bool:
    """Whether the current batch is the first one of an accumulation window."""
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, AccumulatingLoop)
    return loop.begins_window


def ends_window(trainer: Trainer) -> bool:
    """Whether the last batch was the last one of an accumulation window."""
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, AccumulatingLoop)
    return loop.ends_window


def restore(trainer: Trainer) -> None:
    """Restore the step counter and the accumulation window. Call it when training starts.

    If a validation was due at the checkpoint, the first iteration of Lightning's loop after a resume has no
    batch, but is counted as a step.
    """
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, AccumulatingLoop)
    loop.first_batch = loop.batch_progress.total.ready
    if loop.restarting:
        assert trainer.fit_loop._data_fetcher is not None
        empty_iteration = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        loop._batches_that_stepped = trainer.global_step - empty_iteration
