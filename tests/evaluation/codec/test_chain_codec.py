"""The codec returns what it was given, in as many bits as the bound says."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nelbo.data.spec import DataSpec
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, LevelChain, full_chain
from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder, Softmax
from nelbo.diffusion.denoiser import Denoiser
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.parameterizations import Categorical, Eps, V
from nelbo.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from nelbo.diffusion.variances import FixedLarge, FixedSmall, LearnedRange

pytest.importorskip("constriction", exc_type=ImportError)

from nelbo.evaluation.codec import ChainCodec, chain_codec
from nelbo.evaluation.codec.chain_codec import batches
from nelbo.evaluation.codec.stack import BitStack, DrawnGaussian, GridGaussian, OpenGridGaussian

SPEC = DataSpec((2, 4), levels=17, num_classes=None)
SCHEDULE = CosineSchedule(200, logsnr_max=9.0)
MEANS = torch.tensor([-0.5, 0.6], dtype=torch.float64).view(2, 1, 1).expand(2, 2, 4)
MIXTURE = GaussianMixtureDenoiser(MEANS, torch.tensor([0.4, 0.6], dtype=torch.float64), 0.2, FixedLarge())


class SmallNetwork(nn.Module):
    """A random network whose output depends on the input, the level and the class."""

    def __init__(self, outputs=2, classes=0):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(9, 32), nn.Tanh(), nn.Linear(32, 4 * outputs))
        self.outputs, self.classes = outputs, classes

    def forward(self, x, c, cond):
        if cond is not None:
            x = x + cond.view(-1, 1, 1)
        flat = torch.cat([x.flatten(1), c[:, None].to(x) / 200], dim=1)
        return self.layers(flat).view(-1, self.outputs, 4)


def images(n, spec=SPEC, seed=0):
    """Draws of the mixture, as level indices."""
    g = torch.Generator().manual_seed(seed)
    component = torch.multinomial(torch.tensor([0.4, 0.6]), n, replacement=True, generator=g)
    x0 = MEANS[component] + 0.2 * torch.randn(n, 2, 4, generator=g)
    return spec.to_levels(x0)


def chain(K, schedule=SCHEDULE):
    return Chain(schedule, torch.linspace(1, schedule.T, K).round().long())


def codec(denoise=MIXTURE, K=20, spec=SPEC, decoder=None, clip=None, steps=None, **options):
    bound = VariationalBound(steps or chain(K), decoder or DiscretizedGaussian(17), clip)
    return ChainCodec(bound, denoise, spec, **options)


def round_trip(used, x, cond=None):
    coded = used.encode(x, cond)
    assert torch.equal(used.decode(coded.words, coded.initial_words, len(x), cond), x)
    return coded


@pytest.mark.parametrize("K", [1, 2, 20])
def test_exact_denoiser_round_trip_has_the_length_of_the_bound(K):
    coded = round_trip(codec(K=K, batch_size=50), images(300))
    bound = -float(coded.log_weight.sum()) / math.log(2)
    assert coded.net_bits == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("K", [1, 20])
def test_log_weights_have_the_mean_of_the_bound(K):
    """They do not if the bits that a latent is drawn with depend on the previous ones."""
    x, used = images(2000), codec(K=K, batch_size=500)
    log_weight = used.encode(x).log_weight
    g = torch.Generator().manual_seed(0)
    x0 = SPEC.from_levels(x).double()
    noise = torch.randn(K, *x0.shape, generator=g, dtype=torch.float64)
    difference = -log_weight - used.bound.terms(MIXTURE, x0, lambda i: noise[i - 1]).total
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(len(x))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_untrained_network_round_trip(batch_size):
    used = codec(Denoiser(SmallNetwork(), V(), FixedSmall()), clip=(-1.0, 1.0), batch_size=batch_size)
    coded = round_trip(used, images(10))
    # far from the mean, the coder has more mass than the Gaussian
    assert coded.net_bits < -1.02 * float(coded.log_weight.sum()) / math.log(2)


def test_learned_variance_round_trip():
    used = codec(Denoiser(SmallNetwork(4), Eps(), LearnedRange()), clip=(-1.0, 1.0))
    round_trip(used, images(5))


def test_categorical_parameterization_round_trip():
    used = codec(Denoiser(SmallNetwork(2 * 17), Categorical(17), FixedSmall()))
    round_trip(used, images(5))


def test_conditional_network_round_trip_needs_the_same_classes():
    used = codec(Denoiser(SmallNetwork(classes=3), V(), FixedSmall()), batch_size=2)
    label = torch.tensor([0, 2, 1, 1, 0])
    coded = round_trip(used, images(5), label)
    with pytest.raises(ValueError, match="not of this model"):
        used.decode(coded.words, coded.initial_words, 5, label.flip(0) + 1)


def test_predictions_far_from_the_data_are_coded():
    far = gaussian_denoiser((2, 4), 50.0, FixedSmall())
    round_trip(codec(far, K=5), images(5))


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_any_number_of_levels_with_the_softmax_or_the_discretized_gaussian(levels):
    spec = DataSpec((2, 4), levels, None)
    for decoder in (DiscretizedGaussian(levels), *([Softmax(levels)] if levels < 1000 else [])):
        round_trip(codec(spec=spec, decoder=decoder, K=5), images(2, spec))


def test_code_does_not_depend_on_the_blocks_of_probabilities(monkeypatch):
    whole = codec(K=3).encode(images(20)).words
    monkeypatch.setattr(chain_codec, "MOST_PROBABILITIES", 17 * 3)
    np.testing.assert_array_equal(round_trip(codec(K=3), images(20)).words, whole)


def test_chain_of_continuous_time_with_zero_terminal_snr():
    schedule = LinearLogSNRSchedule(None, logsnr_max=9.0)
    steps = LevelChain(schedule, torch.linspace(0, 1, 8, dtype=torch.float64))
    round_trip(codec(steps=steps), images(20))


def test_continuous_data_is_rounded_to_its_bins():
    spec = DataSpec((2, 4), None, None)
    width = 2.0**-9
    x = (images(200).float() / 8 - 1 + 0.011).div(width).round() * width
    used = codec(spec=spec, decoder=GaussianDecoder(), bin_width=width, batch_size=50)
    coded = round_trip(used, x)
    bins = 200 * 8 * math.log2(width)
    assert coded.net_bits == pytest.approx(-float(coded.log_weight.sum()) / math.log(2) - bins, rel=0.01)


def test_continuous_data_without_a_bin_width_is_refused():
    with pytest.raises(ValueError, match="rounds it to multiples"):
        codec(spec=DataSpec((2, 4), None, None), decoder=GaussianDecoder())
    with pytest.raises(ValueError, match="17 levels"):
        codec(bin_width=0.1)


@pytest.mark.parametrize("value", [1e30, -(2.0**32)])
def test_value_of_too_many_bins_is_refused(value):
    spec = DataSpec((2, 4), None, None)
    used = codec(spec=spec, decoder=GaussianDecoder(), bin_width=1.0)
    with pytest.raises(ValueError, match="--bin-width=1: a value is more than 2\\^31 bins from 0"):
        used.encode(torch.full((1, 2, 4), value))


def test_continuous_time_has_no_code():
    with pytest.raises(ValueError, match="finitely many steps"):
        codec(steps=full_chain(LinearLogSNRSchedule(None)))


def test_initial_bits_are_paid_once_and_do_not_depend_on_the_batch_size():
    alone = codec(K=5).encode(images(1)).initial_words
    for batch_size in (1, 32):
        assert alone <= codec(K=5, batch_size=batch_size).encode(images(500)).initial_words <= 1.5 * alone


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (1, 7, [1]),
        (17, 7, [1] * 17),
        (21, 7, [1] * 16 + [2, 2, 1]),
        (5, 1, [1] * 5),
        (30, 2, [1] * 16 + [2] * 7),
    ],
)
def test_batches_grow_with_the_examples_before_them(n, batch_size, sizes):
    parts = list(batches(n, batch_size))
    assert list(map(len, parts)) == sizes
    assert torch.equal(torch.cat(parts), torch.arange(n))


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batches_backwards_are_the_same(batch_size):
    parts, backwards = (list(batches(1000, batch_size, backwards=b)) for b in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(parts, backwards[::-1], strict=True))
    assert max(map(len, parts)) == batch_size
    next(batches(2**40, batch_size, backwards=True))


def test_another_model_is_detected():
    coded = codec(K=5).encode(images(20))
    other = gaussian_denoiser((2, 4), 0.5, FixedLarge())
    with pytest.raises(ValueError, match="not of this model"):
        codec(other, K=5).decode(coded.words, coded.initial_words, 20)


def test_network_receives_the_same_inputs_in_both_directions_and_the_given_threads():
    before = torch.get_num_threads()
    seen = []

    def denoise(xt, level, cond=None):
        seen.append((xt.numpy().tobytes(), level.t.tolist(), torch.get_num_threads()))
        return MIXTURE(xt, level)

    round_trip(codec(denoise, K=3, batch_size=4, threads=2), images(40))
    half = len(seen) // 2
    assert seen[half:] == seen[:half][::-1]
    assert {len(t) for _, t, _ in seen} == {1, 2, 3}
    assert {threads for _, _, threads in seen} == {2}
    assert torch.get_num_threads() == before


def test_diverged_model_is_refused():
    def denoise(xt, level, cond=None):
        return MIXTURE(xt * torch.nan, level)

    with pytest.raises(ValueError, match="diverged"):
        codec(denoise).encode(images(1))


# ------------------------------------------------------------------ the stack


def test_draws_have_the_variance_of_the_gaussian():
    stack, n = BitStack(), 50_000
    drawn = GridGaussian(np.full(n, 1e6 + 0.3), np.full(n, 10.0)).pop(stack)
    assert drawn.mean() == pytest.approx(1e6 + 0.3, abs=0.1)
    assert drawn.var() == pytest.approx(100.0 + 1 / 12, rel=0.02)


def test_draws_are_independent_of_what_was_pushed():
    n, standard = 20_000, (np.zeros(20_000), np.full(20_000, 16.0))
    pushed = np.rint(16.0 * np.random.default_rng(0).standard_normal(n)).astype(np.int64)
    correlations = []
    for model in (GridGaussian(*standard), DrawnGaussian(*standard, key=(0, 1))):
        stack = BitStack()
        OpenGridGaussian(*standard).push(stack, pushed)
        correlations.append(np.corrcoef(model.pop(stack), pushed)[0, 1])
    assert correlations[0] > 0.9
    assert abs(correlations[1]) < 4 / math.sqrt(n)


def test_pushing_what_was_drawn_restores_the_initial_bits():
    stack = BitStack()
    model = DrawnGaussian(np.linspace(-5, 5, 300), np.linspace(1, 40, 300), key=(3, 4))
    drawn = model.pop(stack)
    model.push(stack, drawn)
    assert stack.is_initial(stack.initial_words)


def test_values_beyond_the_range_are_coded():
    stack = BitStack()
    values = np.array([0, 5, -9, 10**6, -(10**9), 9, 10])
    model = OpenGridGaussian(np.zeros(7), np.ones(7))
    model.push(stack, values)
    np.testing.assert_array_equal(model.pop(stack), values)
    assert stack.is_initial(stack.initial_words)
    with pytest.raises(ValueError, match="diverged"):
        OpenGridGaussian(np.zeros(1), np.ones(1)).push(stack, np.array([2**33]))


def test_stack_that_ends_too_early_is_refused():
    with pytest.raises(ValueError, match="not of this model"):
        GridGaussian(np.zeros(100), np.ones(100)).pop(BitStack(np.ones(4, dtype=np.uint32)))
