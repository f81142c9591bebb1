"""Bits-back coding of data along the reverse chain of a diffusion model.

The latents of a chain are coded in the order of Bit-Swap (Kingma, Abbeel and Ho 2019): the forward process is
Markov, so

    pop x_1 from q(x_1 | x_0), push x_0 with p(x_0 | x_1),
    pop x_i from q(x_i | x_{i-1}), push x_{i-1} with p(x_{i-1} | x_i),    i = 2..K,
    push x_K with p(x_K),

and the decoder does the opposite from the end. In expectation x_0 costs the bound of the chain. x_i is drawn
before x_{i-1} is pushed, so the initial bits are at most those of two latents. The order that draws all
latents first (x_K from q(x_K | x_0), then x_{i-1} from q(x_{i-1} | x_i, x_0)) needs those of K latents.

Each x_i is on a grid of its own, of a width below 1/8 of the narrowest standard deviation that it is drawn or
coded with. The precision cancels: q and p have mass on the same grid.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from nelbo.cond import Cond, rows_of
from nelbo.data.spec import DataSpec
from nelbo.diffusion.bound import Denoise, VariationalBound
from nelbo.diffusion.chain import finite_chain
from nelbo.diffusion.denoiser import Prediction
from nelbo.diffusion.gaussian import DiagonalGaussian
from nelbo.diffusion.level import Step, sum_per_example
from nelbo.diffusion.process import forward, posterior
from nelbo.evaluation.codec.stack import OTHER_MODEL, BitStack, DrawnGaussian, OpenGridGaussian, constriction
from nelbo.progress import ReportProgress

BINS_PER_STD = 8
GROWTH = 16  # examples before a batch, for each of its examples beyond the first
MOST_BINS_FROM_0 = 2**31
MOST_PROBABILITIES = 2**22  # in memory at a time


@dataclass(frozen=True)
class Coded:
    """Coded examples.

    Attributes:
        words: (W,) uint32, the coded data.
        initial_words: number of words of ``words`` that are initial bits: they are paid once.
        log_weight: (N,) float64 nats, log p(x_0, x_{1:K}) - log q(x_{1:K} | x_0) of the latents that were
            drawn. Its expectation is minus the bound. A density of x_0 for continuous data.
    """

    words: np.ndarray
    initial_words: int
    log_weight: Tensor

    @property
    def net_bits(self) -> int:
        """Bits without the initial ones."""
        return 32 * (len(self.words) - self.initial_words)


class ChainCodec:
    """A lossless code for data of a model, whose length is the variational bound.

    Encoder and decoder must compute the same bits, so the network receives the same batches in both
    directions, and torch uses ``threads`` threads. The latents of a batch are drawn from the code of the
    batches before it: the first batches are small, and then the initial bits are about those of one example.

    Args:
        bound: chain, decoder and clipping.
        denoise: maps (x_t, level, cond) to a prediction, on the CPU.
        spec: of the data.
        bin_width: of continuous data, which is rounded to its multiples; None for quantised data.
        batch_size: most examples that are coded together.
        threads: of torch.

    Raises:
        ValueError: for continuous data without a bin width, or continuous time.
    """

    def __init__(
        self,
        bound: VariationalBound,
        denoise: Denoise,
        spec: DataSpec,
        *,
        bin_width: float | None = None,
        batch_size: int = 32,
        threads: int = 1,
    ) -> None:
        check_bin_width(spec, bin_width)
        self.bound = bound
        self.chain = finite_chain(bound.chain)
        self.denoise = denoise
        self.spec = spec
        self.bin_width = bin_width
        self.batch_size = batch_size
        self.threads = threads
        self._widths = grid_widths(self._step(i, 1) for i in range(1, self.chain.num_steps + 1))

    @torch.no_grad()
    def encode(
        self, stored: Tensor, cond: Cond | None = None, progress: ReportProgress = lambda done, total: None
    ) -> Coded:
        """Code examples.

        Args:
            stored: (N, *shape) as :meth:`DataSpec.to_levels` returns them.
            cond: of conditional models: (N,) class labels, or a mapping of tensors (N, ...).
            progress: called with (examples done, N).

        Raises:
            ValueError: for predictions that are not finite, and values that are 2^31 bins from 0 or more.
        """
        stack, log_weights = BitStack(), []
        with _threads(self.threads):
            for rows in batches(len(stored), self.batch_size):
                clean = self._to_grid(stored[rows])
                log_weights.append(self._encode(stack, clean, rows_of(cond, rows), int(rows[0])))
                progress(int(rows[-1]) + 1, len(stored))
        return Coded(stack.words, stack.initial_words, torch.cat(log_weights))

    @torch.no_grad()
    def decode(
        self,
        words: np.ndarray,
        initial_words: int,
        n: int,
        cond: Cond | None = None,
        progress: ReportProgress = lambda done, total: None,
    ) -> Tensor:
        """The examples, (N, *shape) as they were given to :meth:`encode`.

        Args:
            words: (W,) uint32, of :meth:`encode`.
            initial_words: of :meth:`encode`.
            n: number of examples, N.
            cond: as given to :meth:`encode`.
            progress: called with (examples done, N).

        Raises:
            ValueError: for words of another codec.
        """
        stack, found = BitStack(words), []
        with _threads(self.threads):
            for rows in batches(n, self.batch_size, backwards=True):
                decoded = self._decode(stack, len(rows), rows_of(cond, rows), int(rows[0]))
                found.append(self._from_grid(decoded))
                progress(n - int(rows[0]), n)
        if not stack.is_initial(initial_words):
            raise ValueError(OTHER_MODEL)
        return torch.cat(found[::-1])

    def rounded(self, stored: Tensor) -> Tensor:
        """What :meth:`decode` returns for examples (N, *shape): continuous data rounded to its bins."""
        return self._from_grid(self._to_grid(stored))

    def nats(self, coded: Coded) -> Tensor:
        """-log of the weights of each example, (N,) nats: the length of its code without overhead."""
        return -coded.log_weight - self.spec.dims * math.log(self.bin_width or 1.0)

    def _encode(self, stack: BitStack, clean: np.ndarray, cond: Cond | None, first: int) -> Tensor:
        """Push examples (B, *shape), numbered from ``first``, on the grid of data; log weights (B,) nats."""
        x, previous = clean, self._values(clean)
        log_weight = torch.zeros(len(clean), dtype=torch.float64)
        for i, width in enumerate(self._widths, start=1):
            step = self._step(i, len(clean))
            q = forward(previous, step)
            noisier = _drawn(q, width, (first, i)).pop(stack).reshape(x.shape)
            current = torch.from_numpy(noisier * width)
            prediction = self._predict(current, i, cond)
            if i == 1:
                log_p = self._push_data(stack, x, prediction, step)
            else:
                p = self._reverse(prediction, current, step)
                _coded(p, self._widths[i - 2]).push(stack, x.reshape(-1))
                log_p = p.log_prob(previous)
            log_weight += sum_per_example(log_p - q.log_prob(current))
            x, previous = noisier, current
        prior = _standard(previous)
        _coded(prior, self._widths[-1]).push(stack, x.reshape(-1))
        return log_weight + sum_per_example(prior.log_prob(previous))

    def _decode(self, stack: BitStack, size: int, cond: Cond | None, first: int) -> np.ndarray:
        """Pop examples (size, *shape), numbered from ``first``, on the grid of data."""
        prior = _standard(torch.zeros(size, *self.spec.shape, dtype=torch.float64))
        shape = prior.mean.shape
        x = _coded(prior, self._widths[-1]).pop(stack).reshape(shape)
        for i in range(self.chain.num_steps, 0, -1):
            step, width = self._step(i, size), self._widths[i - 1]
            current = torch.from_numpy(x * width)
            prediction = self._predict(current, i, cond)
            if i == 1:
                cleaner = self._pop_data(stack, prediction, step)
                previous = self._values(cleaner)
            else:
                p, cleaner_width = self._reverse(prediction, current, step), self._widths[i - 2]
                cleaner = _coded(p, cleaner_width).pop(stack).reshape(shape)
                previous = torch.from_numpy(cleaner * cleaner_width)
            _drawn(forward(previous, step), width, (first, i)).push(stack, x.reshape(-1))
            x = cleaner
        return x

    def _step(self, i: int, size: int) -> Step:
        return self.chain.step(torch.full((size,), i))

    def _predict(self, xt: Tensor, i: int, cond: Cond | None) -> Prediction:
        """The prediction at x_i (B, ...), float64, computed in float32."""
        found = self.denoise(xt.float(), self.chain.level(torch.full((len(xt),), i)), cond)
        var_output = None if found.var_output is None else found.var_output.double()
        return replace(
            found, x0_hat=found.x0_hat.double(), eps_hat=found.eps_hat.double(), var_output=var_output
        )

    def _reverse(self, prediction: Prediction, xt: Tensor, step: Step) -> DiagonalGaussian:
        """p(x_s | x_t), (B, ...) float64."""
        mean = posterior(self.bound.x0_hat(prediction), xt, step).mean
        return DiagonalGaussian(mean, prediction.log_var(step))

    def _to_grid(self, stored: Tensor) -> np.ndarray:
        if self.bin_width is None:
            return stored.numpy().astype(np.int64)
        position = np.rint(stored.double().numpy() / self.bin_width)
        if np.abs(position).max(initial=0.0) > MOST_BINS_FROM_0:
            raise ValueError(
                f"--bin-width={self.bin_width:g}: a value is more than 2^31 bins from 0: use a larger one"
            )
        return position.astype(np.int64)

    def _from_grid(self, x: np.ndarray) -> Tensor:
        if self.bin_width is None:
            return torch.from_numpy(x).to(self.spec.storage)
        return torch.from_numpy(x * self.bin_width).float()

    def _values(self, x: np.ndarray) -> Tensor:
        """Data on its grid -> values (B, ...) float64."""
        if self.bin_width is None:
            return self.spec.from_levels(torch.from_numpy(x)).double()
        return torch.from_numpy(x * self.bin_width)

    def _push_data(self, stack: BitStack, x: np.ndarray, prediction: Prediction, step: Step) -> Tensor:
        """Push data (B, ...) with the decoder's likelihood; its log probability (B, ...)."""
        mean, log_var = self._data_distribution(prediction, step)
        log_p = self.bound.decoder.log_prob(self._values(x), mean, log_var)
        if self.bin_width is not None:
            _coded(DiagonalGaussian(mean, log_var), self.bin_width).push(stack, x.reshape(-1))
            return log_p
        flat, categorical = x.reshape(-1), constriction().stream.model.Categorical(perfect=False)
        for part in reversed(self._blocks(x.size)):
            stack.push(flat[part], categorical, self._level_probabilities(mean, log_var, part))
        return log_p

    def _pop_data(self, stack: BitStack, prediction: Prediction, step: Step) -> np.ndarray:
        """Pop data (B, ...), on its grid."""
        mean, log_var = self._data_distribution(prediction, step)
        if self.bin_width is not None:
            p = DiagonalGaussian(mean, log_var)
            return _coded(p, self.bin_width).pop(stack).reshape(mean.shape)
        categorical = constriction().stream.model.Categorical(perfect=False)
        found = []
        for part in self._blocks(mean.numel()):
            probabilities = self._level_probabilities(mean, log_var, part)
            found.append(stack.pop(len(probabilities), categorical, probabilities))
        return np.concatenate(found).reshape(mean.shape)

    def _data_distribution(self, prediction: Prediction, step: Step) -> tuple[Tensor, Tensor]:
        x0_hat = self.bound.x0_hat(prediction)
        return self.bound.decoder.distribution(prediction, x0_hat, step)

    def _blocks(self, n: int) -> list[slice]:
        """Parts of n scalars, whose probabilities fit into memory."""
        assert self.spec.levels is not None, "continuous data has bins"
        size = max(1, MOST_PROBABILITIES // self.spec.levels)
        return [slice(start, min(n, start + size)) for start in range(0, n, size)]

    def _level_probabilities(self, mean: Tensor, log_var: Tensor, part: slice) -> np.ndarray:
        """Probabilities (n, levels) of a part of the scalars of a batch."""
        assert self.spec.levels is not None, "continuous data has bins"
        values = self.spec.from_levels(torch.arange(self.spec.levels)).double()
        means, log_vars = (x.expand_as(mean).flatten()[part, None] for x in (mean, log_var))
        probabilities = (
            self.bound.decoder.log_prob(values.expand(len(means), -1), means, log_vars).exp().numpy()
        )
        if not np.isfinite(probabilities).all():
            raise ValueError("a predicted probability is not finite: the model has diverged")
        return probabilities


def batches(n: int, batch_size: int, backwards: bool = False) -> Iterator[Tensor]:
    """The numbers of n examples in batches of at most ``batch_size``, (B,) int64 each.

    A batch has at most one example more than 1/16 of those before it.
    """
    growing, first = [], 0
    while first < min(n, GROWTH * (batch_size - 1)):
        growing.append(first)
        first += 1 + first // GROWTH
    full = range(first, n, batch_size)
    for first in chain(reversed(full), reversed(growing)) if backwards else chain(growing, full):
        yield torch.arange(first, min(n, first + batch_size, first + 1 + first // GROWTH))


def check_bin_width(spec: DataSpec, bin_width: float | None) -> None:
    """Check that continuous data has a bin width, and other data has none.

    Raises:
        ValueError: naming what is wrong.
    """
    if spec.levels is None and bin_width is None:
        raise ValueError(
            "continuous data has no code of finite length: --bin-width=0.01 rounds it to multiples of 0.01"
        )
    if spec.levels is not None and bin_width is not None:
        raise ValueError(
            f"--bin-width={bin_width:g} is for continuous data, and this data has {spec.levels} levels"
        )


def grid_widths(steps: Iterator[Step]) -> list[float]:
    """Width of the grid of each x_i, powers of two, for the steps 1..K of a chain with levels of shape (1,).

    x_i is drawn with the variance beta of step i, and coded with a variance of at least beta-tilde of step
    i + 1, or 1 at the end of the chain.
    """
    log_vars = [(float(step.log_beta), float(step.log_beta_tilde)) for step in steps]
    coded = [tilde for _, tilde in log_vars[1:]] + [0.0]
    narrowest = [0.5 * min(beta, tilde) for (beta, _), tilde in zip(log_vars, coded, strict=True)]
    return [2.0 ** math.floor(log_std / math.log(2) - math.log2(BINS_PER_STD)) for log_std in narrowest]


def _drawn(q: DiagonalGaussian, width: float, key: tuple[int, int]) -> DrawnGaussian:
    return DrawnGaussian(*_in_bins(q, width), key)


def _coded(p: DiagonalGaussian, width: float) -> OpenGridGaussian:
    return OpenGridGaussian(*_in_bins(p, width))


def _in_bins(gaussian: DiagonalGaussian, width: float) -> tuple[np.ndarray, np.ndarray]:
    std = (0.5 * gaussian.log_var.double()).exp().expand_as(gaussian.mean)
    return (gaussian.mean / width).flatten().numpy(), (std / width).flatten().numpy()


def _standard(like: Tensor) -> DiagonalGaussian:
    zero = torch.zeros_like(like)
    return DiagonalGaussian(zero, zero)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
