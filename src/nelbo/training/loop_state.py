"""Where in the data a run stands, so that Lightning takes it up there exactly.

Lightning counts batches, epochs and logged steps in several places, and the counts that it saves depend on
the hook in which it saves them. Between two batches all of them follow from two numbers: the batches trained
on so far and the batches of an epoch. So they are written anew when a checkpoint is taken up.
"""

from typing import Any

from lightning import Trainer

from nelbo.training.accumulation import AccumulatingLoop

BATCHES_PER_EPOCH = "batches_per_epoch"


def save(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Put into a checkpoint what its own counts do not say."""
    checkpoint[BATCHES_PER_EPOCH] = int(trainer.num_training_batches)


def normalize(checkpoint: dict[str, Any]) -> None:
    """Let every count of a checkpoint say that the batch before has ended and the next one has not begun."""
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    done = batches["total"]["completed"]
    epoch, batch = divmod(done, checkpoint[BATCHES_PER_EPOCH])
    for name in ("ready", "started", "processed", "completed"):
        batches["total"][name] = done
        batches["current"][name] = batch
        # an epoch has begun when it has trained on a batch
        begun = epoch + (name in ("ready", "started") and batch > 0)
        loops["epoch_progress"]["total"][name] = loops["epoch_progress"]["current"][name] = begun
    batches["is_last_batch"] = False
    loops["combined_loader"] = [{"epoch": epoch, "batches": batch}]


def begins_window(trainer: Trainer) -> bool:
    """Whether the current batch is the first one whose gradient goes into the next optimizer step."""
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, AccumulatingLoop)
    return loop.begins_window


def restore(trainer: Trainer) -> None:
    """Count steps and the windows of accumulation from where they were. When training starts.

    Lightning's first round after a checkpoint is one without a batch where a validation was due, and counts a
    step for it.
    """
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, AccumulatingLoop)
    loop.first_batch = loop.batch_progress.total.ready
    if loop.restarting:
        assert trainer.fit_loop._data_fetcher is not None
        empty_round = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        loop._batches_that_stepped = trainer.global_step - empty_round
