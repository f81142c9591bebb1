"""A stack of bits that symbols are coded on: asymmetric numeral systems (Duda 2009), by constriction.

Popping a symbol from bits that are independent of it draws the symbol from the model. This is what bits-back
coding draws latents with (Townsend et al. 2019); pushing the symbol again restores the bits.
"""

import hashlib
from importlib import import_module
from typing import Any

import numpy as np

WORD_BITS = 32
HEAD_WORDS = 2  # of the coder's state; a stack of so few words has been emptied
LARGEST_EXCESS = 2**32
MOST_BINS = 2**20  # on each side of the mean; constriction has probabilities of 24 bits
OTHER_MODEL = "the coded data is not of this model, or this machine computes other numbers with it"
MASK_BITS = 16
RANGE_STDS = 8.0  # of a Gaussian, beyond which a pop does not draw


def constriction() -> Any:
    """The library of entropy coders, which has no types.

    Raises:
        ValueError: with the command that installs it.
    """
    try:
        return import_module("constriction")
    except ModuleNotFoundError as error:
        raise ValueError("the codec needs constriction: pip install 'nelbo[codec]'") from error


class BitStack:
    """Bits as 32-bit words, on which symbols are pushed and popped.

    A new stack starts with fixed pseudo-random bits, as many as the pops need. They remain at the bottom, and
    are left over when everything else is popped.

    Args:
        words: (W,) uint32, content of another stack; None for a new one.
    """

    def __init__(self, words: np.ndarray | None = None) -> None:
        self._make = constriction().stream.stack.AnsCoder
        self.initial_words = 0 if words is not None else HEAD_WORDS + 1
        self._coder: Any = self._make(_initial(self.initial_words) if words is None else words)

    @property
    def words(self) -> np.ndarray:
        """(W,) uint32, the last one is the top."""
        return self._coder.get_compressed()

    def push(self, symbols: np.ndarray, model: Any, *parameters: np.ndarray) -> None:
        """Push symbols (n,); :meth:`pop` with the same model returns them in the same order.

        Args:
            symbols: (n,) integers.
            model: of ``constriction.stream.model``.
            *parameters: (n,) or (n, ...) parameters of the symbols.
        """
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), model, *parameters)

    def pop(self, n: int, model: Any, *parameters: np.ndarray) -> np.ndarray:
        """Pop symbols, (n,) int64. A new stack gets more initial bits where it would become empty.

        Args:
            n: number of symbols.
            model: of ``constriction.stream.model``.
            *parameters: (n,) or (n, ...) parameters of the symbols.

        Raises:
            ValueError: for a stack of given words that becomes empty.
        """
        if n == 0:
            return np.zeros(0, dtype=np.int64)
        amount = () if parameters else (n,)
        if self._coder.num_words() > HEAD_WORDS + n:  # a symbol takes at most 24 bits
            return self._coder.decode(model, *parameters, *amount).astype(np.int64)
        before = self._coder.clone()
        symbols = self._coder.decode(model, *parameters, *amount)
        while self._coder.num_words() <= HEAD_WORDS:
            if not self.initial_words:
                raise ValueError(OTHER_MODEL)
            more = 1 + n // WORD_BITS  # a bit for each symbol
            added = _initial(self.initial_words + more)[:more]
            self.initial_words += more
            before = self._make(np.concatenate([added, before.get_compressed()]))
            self._coder = before.clone()
            symbols = self._coder.decode(model, *parameters, *amount)
        return symbols.astype(np.int64)

    def is_initial(self, initial_words: int) -> bool:
        """Whether exactly ``initial_words`` words of initial bits are left."""
        words = self.words
        return len(words) == initial_words and np.array_equal(words, _initial(initial_words))


class GridGaussian:
    """Integers n with the mass of a Gaussian on [n - 1/2, n + 1/2], within 8 standard deviations of its mean.

    The range moves with the mean. The coder gives each integer of its range at least the probability 2^-24:
    over a fixed wide range this would increase the variance of what is drawn.

    Args:
        mean: (n,) float64, in bins.
        std: (n,) float64, in bins.

    Raises:
        ValueError: for values that are not finite.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError("a predicted mean or variance is not finite: the model has diverged")
        self._centre = np.rint(mean).astype(np.int64)
        self._half = min(int(np.ceil(RANGE_STDS * std.max())) + 1, MOST_BINS)
        self._model = constriction().stream.model.QuantizedGaussian(-self._half, self._half)
        self._parameters = (mean - self._centre, std)

    def pop(self, stack: BitStack) -> np.ndarray:
        """Draw (n,) int64."""
        return self._centre + stack.pop(len(self._centre), self._model, *self._parameters)

    def push(self, stack: BitStack, symbols: np.ndarray) -> None:
        """Push what :meth:`pop` drew, (n,) int64.

        Raises:
            ValueError: for an integer out of range, which :meth:`pop` does not draw.
        """
        offset = symbols - self._centre
        if (np.abs(offset) > self._half).any():
            raise ValueError(OTHER_MODEL)
        stack.push(offset, self._model, *self._parameters)


class DrawnGaussian(GridGaussian):
    """A :class:`GridGaussian` to draw from, with bits that are independent of what was pushed before.

    A pop returns the quantile of the symbol that was pushed last: the noise of a latent would be a function
    of the one before, which made codes of an exact mixture 1.6% longer than the bound. So the bits that a
    pop needs are combined with a mask of pseudo-random bits (XOR), and :meth:`push` removes it.

    Args:
        mean: (n,) float64, in bins.
        std: (n,) float64, in bins.
        key: of the mask, two numbers below 2^64.

    Raises:
        ValueError: for values that are not finite.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray, key: tuple[int, int]) -> None:
        super().__init__(mean, std)
        entropy = np.log2(np.sqrt(2 * np.pi * np.e) * std).clip(min=0.0).sum()  # bits
        size = 1 + int(entropy) // MASK_BITS
        self._mask = (np.random.Philox(key=key).random_raw(size) >> (64 - MASK_BITS)).astype(np.int64)

    def pop(self, stack: BitStack) -> np.ndarray:
        """Draw (n,) int64."""
        self._combine(stack)
        return super().pop(stack)

    def push(self, stack: BitStack, symbols: np.ndarray) -> None:
        """Push what :meth:`pop` drew, (n,) int64.

        Raises:
            ValueError: for an integer out of range, which :meth:`pop` does not draw.
        """
        super().push(stack, symbols)
        self._combine(stack)

    def _combine(self, stack: BitStack) -> None:
        words = constriction().stream.model.Uniform(2**MASK_BITS)
        stack.push(stack.pop(len(self._mask), words) ^ self._mask, words)


class OpenGridGaussian(GridGaussian):
    """A :class:`GridGaussian` for all integers: beyond the range, 32 more bits say how far.

    Args:
        mean: (n,) float64, in bins.
        std: (n,) float64, in bins.

    Raises:
        ValueError: for values that are not finite.
    """

    def pop(self, stack: BitStack) -> np.ndarray:
        """Pop (n,) int64."""
        offset = super().pop(stack) - self._centre
        outside = np.abs(offset) == self._half
        half_words = stack.pop(2 * int(outside.sum()), constriction().stream.model.Uniform(2**16)).reshape(
            -1, 2
        )
        offset[outside] += np.sign(offset[outside]) * (half_words @ np.array([2**16, 1]))
        return self._centre + offset

    def push(self, stack: BitStack, symbols: np.ndarray) -> None:
        """Push (n,) int64.

        Raises:
            ValueError: for an integer that is 2^32 bins or more out of range.
        """
        offset = symbols - self._centre
        clipped = offset.clip(-self._half, self._half)
        excess = np.abs(offset - clipped)[np.abs(clipped) == self._half]
        if (excess >= LARGEST_EXCESS).any():
            raise ValueError("a value is more than 2^32 bins from its prediction: the model has diverged")
        stack.push(
            np.stack([excess >> 16, excess & 0xFFFF], axis=1).reshape(-1),
            constriction().stream.model.Uniform(2**16),
        )
        super().push(stack, self._centre + clipped)


def _initial(count: int) -> np.ndarray:
    """Initial words (count,), the same ones below the top for every count; the top one is not 0."""
    stream = hashlib.shake_256(b"nelbo").digest(4 * count)
    return np.frombuffer(stream, dtype="<u4").astype(np.uint32)[::-1]
