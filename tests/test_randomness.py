"""Random numbers are those of Philox4x32-10, and functions of their key, row and position."""

import numpy as np
import pytest
import torch
from scipy import stats

from nelbo.randomness import bernoulli, normals, philox, row_keys, uniforms

ONES = 0xFFFFFFFF
# Random123, tests/kat_vectors: counter, key, words
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
ROWS = torch.arange(64)


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN, ids=["zeros", "ones", "pi"])
@pytest.mark.parametrize("size", [1, 37])  # scalar code, and code for vectors
def test_philox_has_the_published_words(counter, key, expected, size):
    found = philox(tuple(torch.full((size,), word) for word in words(counter)), words(key))
    assert [set(word.tolist()) for word in found] == [{word} for word in words(expected)]


def test_philox_equals_its_definition():
    """On random counters, in Python's integers of any size (Salmon et al. 2011, section 3.3)."""
    counters = torch.randint(2**32, (4, 200), generator=torch.Generator().manual_seed(0))
    found = torch.stack(philox(tuple(counters), (ONES - 1, 2**31)))
    for counter, output in zip(counters.T.tolist(), found.T.tolist(), strict=True):
        k0, k1 = ONES - 1, 2**31
        for _ in range(10):
            p0, p1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = [(p1 >> 32) ^ counter[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ counter[3] ^ k1, p0 % 2**32]
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        assert output == counter


def test_a_word_of_a_counter_can_be_a_number():
    block = torch.arange(5)
    mixed = philox((block, 7, ONES, 0), (1, 2))
    whole = philox((block, torch.tensor(7), torch.tensor(ONES), torch.tensor(0)), (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(mixed, whole, strict=True))


def test_the_normals_are_those_of_box_and_muller():
    """One block, computed with math functions of NumPy."""
    found = normals((3, "noise"), torch.tensor([11]), (4,), torch.float64, range(5, 6))
    other = [normals((3, "noise"), torch.tensor([11]), (n,), torch.float64, range(5, 6)) for n in (1, 2, 3)]
    assert all(torch.equal(part[0, 0], found[0, 0, : part.shape[2]]) for part in other)
    radius = found[0, 0].view(2, 2).norm(dim=1).numpy()
    words = np.exp(-(radius**2) / 2) * 2**32 - 0.5
    np.testing.assert_allclose(words, words.round(), atol=1e-3)  # 32-bit numbers, centred in their cells
    pairs = found.numpy().reshape(2, 2)
    angle = np.arctan2(pairs[:, 1], pairs[:, 0]) % (2 * np.pi) * 2**32 / (2 * np.pi)
    np.testing.assert_allclose(angle, angle.round(), atol=1e-3)


def test_normals_are_normal():
    drawn = normals((0, "noise"), ROWS, (3, 64, 64), torch.float64).flatten().numpy()
    n = len(drawn)  # 786,432
    for order, moment in enumerate((0.0, 1.0, 0.0, 3.0, 0.0, 15.0), start=1):
        spread = np.sqrt((drawn ** (2 * order)).mean() / n)
        assert abs((drawn**order).mean() - moment) < 4 * spread
    assert stats.kstest(drawn, "norm").pvalue > 0.001
    assert np.abs(drawn).max() < 6.77


def test_uniforms_are_uniform():
    drawn = uniforms((0, "coin"), ROWS, 10_001).flatten().numpy()
    assert stats.kstest(drawn, "uniform").pvalue > 0.001
    assert 0.0 <= drawn.min() < drawn.max() < 1.0
    assert (drawn * 2**53 % 1 == 0.0).all()
    assert (drawn * 2**52 % 1 > 0.0).any()  # all bits are in use


def neighbours():
    """Draws whose keys, rows, draws or positions differ by one."""
    one = normals((0, "noise", 5), ROWS, (8, 8), draws=range(2))
    yield "row", one[:-1], one[1:]
    yield "draw", one[:, 0], one[:, 1]
    yield "position", one[..., :-1], one[..., 1:]
    yield "block", one.flatten(2)[..., :-4], one.flatten(2)[..., 4:]
    for name, key in {"seed": (1, "noise", 5), "purpose": (0, "sample", 5), "batch": (0, "noise", 6)}.items():
        yield name, one, normals(key, ROWS, (8, 8), draws=range(2))


NEIGHBOURS = {name: pair for name, *pair in neighbours()}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_independent(name):
    one, other = NEIGHBOURS[name]
    one, other = one.flatten().double(), other.flatten().double()
    for a, b in ((one, other), (one.square() - 1, other.square() - 1), (one.sign(), other.sign())):
        products = a * b
        assert products.mean().abs() < 4 * products.std() / len(a) ** 0.5
    assert (one == other).sum() <= 1


def test_a_draw_does_not_depend_on_what_is_drawn_with_it():
    whole = normals((0, "noise"), ROWS, (3, 5), draws=range(4))
    for part in ROWS.split(13):
        assert torch.equal(normals((0, "noise"), part, (3, 5), draws=range(4)), whole[part])
    for draw in range(4):
        assert torch.equal(normals((0, "noise"), ROWS, (3, 5), draws=range(draw, draw + 1)), whole[:, [draw]])
    order = ROWS.flip(0)
    assert torch.equal(normals((0, "noise"), order, (3, 5), draws=range(4)), whole[order])
    assert torch.equal(uniforms((0, "coin"), ROWS[7:9], 3), uniforms((0, "coin"), ROWS, 9)[7:9, :3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_another_dtype_has_the_same_numbers_rounded(dtype):
    exact = normals((0, "noise"), ROWS, (1, 8, 8), torch.float64)
    assert torch.equal(normals((0, "noise"), ROWS, (1, 8, 8), dtype), exact.to(dtype))


# splitmix64.c by Vigna, seed 1234567
SPLITMIX = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]


def test_events_come_from_the_published_numbers_of_splitmix():
    parts = np.array(SPLITMIX, dtype="<u8").view("<i2").astype(int) + 2**15
    for threshold in [*parts.tolist(), *(parts + 1).tolist(), 0, 2**16 - 1]:
        found = bernoulli(torch.tensor([1234567]), 16, threshold / 2**16)
        assert found.tolist() == [(parts < threshold).tolist()]


@pytest.mark.parametrize("p", [0.0, 2**-16, 0.1, 0.5, 1 - 2**-16])
def test_events_have_their_probability(p):
    p = int(p * 2**16) / 2**16
    keys = row_keys((0, "dropout", 7), ROWS, 3)
    happened = torch.stack([bernoulli(each, 40_003, p) for each in keys]).double()
    n = happened.numel()
    assert abs(happened.sum() - n * p) <= 4 * (n * p * (1 - p)) ** 0.5
    for pair in ((happened[0], happened[1]), (happened[:, :-1], happened[:, 1:])):  # layers, rows
        both = ((pair[0] - p) * (pair[1] - p)).mean()
        assert abs(both) <= 4 * p * (1 - p) / pair[0].numel() ** 0.5


def test_keys_and_events_of_a_row_do_not_depend_on_other_rows():
    keys = row_keys((0, "dropout", 7), ROWS, 3)
    assert len(keys.unique()) == keys.numel()
    assert torch.equal(row_keys((0, "dropout", 7), ROWS[5:9], 2), keys[:2, 5:9])
    assert not (row_keys((0, "dropout", 8), ROWS, 3) == keys).any()
    assert torch.equal(bernoulli(keys[1, 5:9], 10, 0.5), bernoulli(keys[1], 33, 0.5)[5:9, :10])
