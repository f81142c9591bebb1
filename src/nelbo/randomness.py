"""Random numbers that are a function of what they are for, and of nothing else.

A seed is a hash of (seed, purpose, position, ...), so a draw depends neither on the batch size, nor on the
number of processes, nor on whether the run was interrupted before it.
"""

import hashlib

import torch


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state is a function of ``key``; on the CPU torch keeps 32 bits of the seed.

    Args:
        key: what the numbers are for, beginning with the run's seed.
        device: where they are drawn.
    """
    return torch.Generator(device).manual_seed(_seed(key))


def reseed(*key: int | str) -> None:
    """Make the state of torch's own generators a function of ``key``: dropout draws from nothing else."""
    torch.manual_seed(_seed(key))


def _seed(key: tuple[int | str, ...]) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
