import math

import pytest
import torch
import torch.nn.functional as F

from nelbo.models.embedding import ConditioningEmbedding, sinusoidal_embedding


def test_matches_the_formula_in_float64():
    c = torch.tensor([0.0, 1.0, 37.5, 1000.0])
    i = torch.arange(16, dtype=torch.float64)
    phase = c.double()[:, None] * 10_000.0 ** (-i / 16)
    expected = torch.cat([phase.cos(), phase.sin()], dim=1)
    embedding = sinusoidal_embedding(c, 32)
    assert embedding.dtype == torch.float32
    # float32 carries a phase of 1000 to 6e-5
    torch.testing.assert_close(embedding.double(), expected, rtol=0, atol=1e-4)


def test_neighbouring_timesteps_have_different_embeddings():
    embedding = sinusoidal_embedding(torch.tensor([998.0, 999.0, 1000.0]), 32)
    assert torch.cdist(embedding, embedding).fill_diagonal_(math.inf).min() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_rounds_features_but_not_phases(dtype):
    module = ConditioningEmbedding(32, 64)
    c = torch.tensor([1.0, 500.0, 999.0])
    module.to(dtype)
    rounded = sinusoidal_embedding(c, 32).to(dtype)
    expected = F.silu(module.linear2(F.silu(module.linear1(rounded))))
    assert torch.equal(module(c), expected)


def test_autocast_leaves_the_features_in_float32():
    c = torch.tensor([1.0, 500.0, 999.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sinusoidal_embedding(c, 32)
    assert torch.equal(inside, sinusoidal_embedding(c, 32))


def test_label_is_needed_exactly_when_there_are_classes():
    c, label = torch.zeros(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="needs cond"):
        ConditioningEmbedding(8, 8, num_classes=2)(c)
    with pytest.raises(ValueError, match="built without num_classes"):
        ConditioningEmbedding(8, 8)(c, label)


def test_an_odd_width_raises():
    with pytest.raises(ValueError, match="must be even, not 33"):
        ConditioningEmbedding(33, 64)
