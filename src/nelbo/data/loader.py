"""A data loader that can be stopped and resumed at any batch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from nelbo.data.batch import Batch
from nelbo.data.examples import Examples, Request
from nelbo.data.order import Order


class Loader:
    """Batches of ``examples`` in the given order.

    A thin class around torch's DataLoader, which fetches (in workers, if any) and pins memory. What
    is added is a position, the epoch and the batches consumed of it, that Lightning moves to the
    next epoch and saves and restores with a checkpoint.

    Args:
        examples: where batches are fetched from.
        order: which examples make up each batch of an epoch.
        num_workers: processes that fetch; 0 fetches in this one.
        in_flight: how many of the batches yielded have not been dealt with (0 or 1). Asked when the
            position is saved: a batch whose step was interrupted has to come again on resuming.
    """

    batch_sampler = None  # Lightning looks for one wherever there is a sampler

    def __init__(
        self,
        examples: Examples,
        order: Order,
        num_workers: int = 0,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        self.order = order
        self.epoch = 0
        self._consumed = 0
        self._resuming = False
        self._in_flight = in_flight
        self._examples = examples
        self._unreadable: list[int] = []
        self._requests: list[Request] = []  # filled anew for each pass: workers outlive an epoch
        self._loader: DataLoader[Batch | ValueError] = DataLoader(
            examples,  # pyright: ignore[reportArgumentType]  # indexed by Request, not by int
            batch_size=None,
            sampler=self._requests,  # pyright: ignore[reportArgumentType]
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # the seeds that it draws for workers are not used; do not take them from the global state
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in a whole epoch, however many of them are left."""
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        """One pass: the rest of the epoch after ``load_state_dict``, otherwise all of it.

        Nothing runs before the first batch is asked for, and it must not: Lightning makes the
        iterator of its first epoch before it says which epoch that is.

        Raises:
            ValueError: for an example that cannot be read, naming it.
        """
        if not self._resuming:
            self._consumed = 0
        self._resuming = False
        left = self.order.batches(self.epoch)[self._consumed :]
        self._requests[:] = [Request(self.epoch, indices.tolist()) for indices in left]
        for wanted, batch in zip(left, self._loader, strict=True):
            if isinstance(batch, ValueError):
                raise batch
            self._unreadable += wanted[wanted != batch.index].tolist()
            self._consumed += 1  # what was yielded: workers have fetched further ahead
            yield batch

    def take_unreadable(self) -> list[str]:
        """Names of the examples that another stood in for since this was last asked, once for each time."""
        names = [self._examples.name(index) for index in self._unreadable]
        self._unreadable.clear()
        return names

    @property
    def sampler(self) -> "Loader":
        """The loader itself: Lightning calls ``set_epoch`` on a loader's sampler only."""
        return self

    # Lightning shuts a loader's workers down, when a run ends or fails, through this attribute of a
    # DataLoader. Workers left to the garbage collector miss the message and stall it for seconds each.
    @property
    def _iterator(self) -> Any:
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: None) -> None:
        self._loader._iterator = value

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``; a position within that very epoch is kept."""
        if epoch != self.epoch:
            self.load_state_dict({"epoch": epoch, "batches": 0})

    def state_dict(self) -> dict[str, int]:
        """The position: ``epoch`` and the number of its ``batches`` consumed."""
        return {"epoch": self.epoch, "batches": self._consumed - self._in_flight()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass start from a position that ``state_dict`` returned."""
        self.epoch = state["epoch"]
        self._consumed = state["batches"]
        self._resuming = True
