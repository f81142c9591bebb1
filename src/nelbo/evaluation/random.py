"""Random numbers that are functions of what they belong to, not of when they were drawn.

Seeds are hashes of (seed, purpose, position, ...), so that a draw does not depend on the batch size, on
the number of processes, or on whether the run was interrupted before it.
"""

import hashlib

import torch
from torch import Tensor


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state is a function of ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


class ExampleNoise:
    """Standard normal noise of single examples, one stream per example of a data set.

    Args:
        seed: the run's seed.
        purpose: keeps streams for different purposes apart.
        index: (B,) position of each example in its data set.
        like: (B, ...) data; noise gets its shape, dtype and device.
    """

    def __init__(self, seed: int, purpose: str, index: Tensor, like: Tensor) -> None:
        self._generators = [generator(seed, purpose, i) for i in index.tolist()]
        self._like = like

    def draw(self) -> Tensor:
        """The next noise of each example, (B, ...)."""
        shape, dtype = self._like.shape[1:], self._like.dtype
        draws = [torch.randn(shape, generator=g, dtype=dtype) for g in self._generators]
        return torch.stack(draws).to(self._like.device)
