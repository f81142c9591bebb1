"""Counter-based random numbers: each is a function of its key and its position.

A key is a hash of (seed, purpose, ...), so a draw depends neither on the batch size, nor on the number of
processes, nor on an earlier interruption. Noise also has a counter for each row and position (Salmon et al.
2011), so any rows can be drawn on any device.
"""

import hashlib
import math

import torch
from torch import Tensor

WORD = 2**32
MASK = WORD - 1
Word = Tensor | int
# of SplitMix64, as signed numbers
_GAMMA, _MIX_1, _MIX_2 = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state is a function of ``key``; on the CPU torch keeps 32 bits of the seed.

    Args:
        key: what the numbers are for, beginning with the run's seed.
        device: where they are drawn.
    """
    return torch.Generator(device).manual_seed(_hash(key) >> 1)


def reseed(*key: int | str) -> None:
    """Make the state of torch's own generators a function of ``key``."""
    torch.manual_seed(_hash(key) >> 1)


def normals(
    key: tuple[int | str, ...],
    row: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    draws: range = range(1),
) -> Tensor:
    """Standard normal numbers, each a function of the key, its row, its draw and its position.

    Box & Muller 1958, computed in float64 on 32-bit numbers: no number is above 6.77 in size.

    Args:
        key: what the numbers are for, beginning with the run's seed.
        row: (B,) int64 numbers of the rows, on the device of the result.
        shape: of one draw of a row.
        dtype: of the result.
        draws: numbers of the draws, R.

    Returns:
        (B, R, *shape).
    """
    number = math.prod(shape)
    draw = torch.arange(draws.start, draws.stop, draws.step, device=row.device)
    words = _words(key, row[:, None, None], draw[:, None], math.ceil(number / 4))
    radius = torch.stack(words[::2], -1).double().add_(0.5).div_(WORD).log_().mul_(-2).sqrt_()
    angle = torch.stack(words[1::2], -1).double().mul_(2 * math.pi / WORD)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.flatten(2)[..., :number].to(dtype).unflatten(2, shape)


def uniforms(key: tuple[int | str, ...], row: Tensor, number: int) -> Tensor:
    """Uniform numbers of 53 bits, each a function of the key, its row and its position.

    Args:
        key: what the numbers are for, beginning with the run's seed.
        row: (B,) int64 numbers of the rows, on the device of the result.
        number: n of each row.

    Returns:
        (B, n) float64 in [0, 1).
    """
    words = _words(key, row[:, None], 0, math.ceil(number / 2))
    high, low = (torch.stack(part, -1).flatten(1)[:, :number] for part in (words[::2], words[1::2]))
    return ((high << 21) + (low >> 11)).double() * 2.0**-53


def row_keys(key: tuple[int | str, ...], row: Tensor, number: int) -> Tensor:
    """Keys of 64 bits for :func:`bernoulli`, each a function of the key, its row and its number.

    Args:
        key: what the numbers are for, beginning with the run's seed.
        row: (B,) int64 numbers of the rows, on the device of the result.
        number: n of keys for each row.

    Returns:
        (n, B) int64.
    """
    each = torch.arange(number, device=row.device)
    low, high, *_ = _words(key, row[:, None], each[:, None, None], 1)
    return (low + (high << 32)).squeeze(2)


def bernoulli(row_key: Tensor, number: int, p: float) -> Tensor:
    """Whether events happen, each a function of the key of its row and its position.

    16 bits of SplitMix64 decide on each event (Steele et al. 2014; constants of Java's SplittableRandom and
    of splitmix64.c by Vigna). It is cheaper than Philox.

    Args:
        row_key: (B,) int64, random in all bits.
        number: n of events for each row.
        p: probability of an event, a multiple of 2^-16.

    Returns:
        (B, n) bool.
    """
    state = torch.arange(1, math.ceil(number / 4) + 1, device=row_key.device) * _GAMMA + row_key[:, None]
    # shifts of unsigned numbers: the mask removes copies of the sign
    state = (state ^ ((state >> 30) & (2**34 - 1))) * _MIX_1
    state = (state ^ ((state >> 27) & (2**37 - 1))) * _MIX_2
    state = state ^ ((state >> 31) & (2**33 - 1))
    return state.view(torch.int16)[:, :number] < round(p * 2**16) - 2**15


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four random words for each counter (Salmon et al. 2011, section 3.3).

    Args:
        counter: words in [0, 2^32), numbers or int64 tensors that broadcast.
        key: words in [0, 2^32).

    Returns:
        Four int64 tensors in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # a product of two words fills the 64 bits, the highest of which is the sign
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p1 >> 32) ^ c1 ^ k0) & MASK, p1, ((p0 >> 32) ^ c3 ^ k1) & MASK, p0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return torch.broadcast_tensors(c0, c1 & MASK, c2, c3 & MASK)


def _words(key: tuple[int | str, ...], row: Tensor, draw: Word, blocks: int) -> list[Tensor]:
    """Four words for each (row, draw, block); row and draw broadcast, blocks are the last dimension."""
    position = torch.arange(blocks, device=row.device)
    high, low = divmod(_hash(key), WORD)
    return philox((position, row, draw, 0), (low, high))


def _hash(key: tuple[int | str, ...]) -> int:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
