"""A data loader that can be resumed at any batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nelbo.data.batch import Batch
from nelbo.data.examples import Examples, Request
from nelbo.data.order import Order


class Loader:
    """Batches of ``examples`` in the given order.

    A wrapper of torch's DataLoader, which fetches (in workers, if any) and pins memory, with a position: the
    epoch and the number of batches consumed. Lightning advances the epoch, and saves and restores the
    position with a checkpoint.

    Args:
        examples: the split.
        order: the batches of each epoch.
        num_workers: worker processes; 0 fetches in this process.
        in_flight: number of yielded batches whose step is not complete (0 or 1), read when the position is
            saved: a batch whose step was interrupted is repeated after a resume.
    """

    batch_sampler = None  # Lightning expects it next to a sampler

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
        self._requests = _Requests()  # replaced in each pass: workers persist
        self._loader: DataLoader[Batch | ValueError] = DataLoader(
            examples,  # pyright: ignore[reportArgumentType]  # indexed by Request, not by int
            batch_size=None,
            sampler=self._requests,  # pyright: ignore[reportArgumentType]
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # seeds of workers are not used: do not draw them from the global generator
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        """One pass: the rest of the epoch after ``load_state_dict``, otherwise the whole epoch.

        A generator, evaluated at the first batch: Lightning creates the iterator of its first epoch before it
        sets the epoch.

        Raises:
            ValueError: for an example that cannot be read; the message names it.
            RuntimeError: when a worker has died.
        """
        if not self._resuming:
            self._consumed = 0
        self._resuming = False
        left = self.order.batches(self.epoch)[self._consumed :]
        self._requests.epoch, self._requests.batches = self.epoch, left
        for requested, batch in zip(left, self._fetched(), strict=True):
            if isinstance(batch, ValueError):
                raise batch
            self._unreadable += requested[requested != batch.index].tolist()
            self._consumed += 1  # batches yielded; workers have fetched more
            yield batch

    def _fetched(self) -> Iterator[Batch | ValueError]:
        batches = iter(self._loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                if self._loader.num_workers == 0 or str(error).startswith("Caught"):  # raised by the data
                    raise
                # it died while this process received its tensors, which torch does not report as such
                raise RuntimeError("DataLoader worker (pid not known) exited unexpectedly") from error
            yield batch

    def take_unreadable(self) -> list[str]:
        """Names of the examples that were replaced since the last call, once per replacement."""
        names = [self._examples.name(index) for index in self._unreadable]
        self._unreadable.clear()
        return names

    @property
    def sampler(self) -> "Loader":
        """The loader itself: Lightning calls ``set_epoch`` on a loader's sampler only."""
        return self

    # Lightning uses this attribute of a DataLoader to shut its workers down at the end of a run. Without it,
    # garbage collection waits seconds for each worker.
    @property
    def _iterator(self) -> Any:
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: None) -> None:
        self._loader._iterator = value

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of ``epoch``. In the current epoch the position is unchanged."""
        if epoch != self.epoch:
            self.load_state_dict({"epoch": epoch, "batches": 0})

    def state_dict(self) -> dict[str, int]:
        """The position: ``epoch`` and the number of consumed ``batches``."""
        return {"epoch": self.epoch, "batches": self._consumed - self._in_flight()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next pass from a position of ``state_dict``."""
        self.epoch = state["epoch"]
        self._consumed = state["batches"]
        self._resuming = True


class _Requests:
    """The requests of one pass. Python integers take several times the memory of tensors."""

    epoch = 0
    batches: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[Request]:
        return (Request(self.epoch, indices.tolist()) for indices in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
