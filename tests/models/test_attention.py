import pytest
import torch

from nelbo.models.attention import SelfAttention, attention, explicit_attention


def perturbed(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_matches_the_definition(num_heads):
    torch.manual_seed(0)
    attention = perturbed(SelfAttention(8, num_heads)).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    qkv = attention.qkv(attention.norm(x)).flatten(2)
    heads = []
    for head in qkv.chunk(num_heads, dim=1):  # the rows of one head are together: q, then k, then v
        query, key, value = head.chunk(3, dim=1)
        scores = query.transpose(1, 2) @ key / query.shape[1] ** 0.5
        heads.append(value @ scores.softmax(dim=-1).transpose(1, 2))
    expected = x + attention.out(torch.cat(heads, dim=1).reshape(x.shape))
    torch.testing.assert_close(attention(x), expected)


def test_the_explicit_operations_equal_the_fused_one():
    query, key, value = torch.randn(3, 2, 3, 10, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(explicit_attention(query, key, value), attention(query, key, value))
    rounded = attention(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), attention(query, key, value), rtol=0, atol=0.03)


def test_channels_last_changes_nothing():
    torch.manual_seed(0)
    attention = perturbed(SelfAttention(8, 2))
    x = torch.randn(2, 8, 4, 4)
    expected = attention(x)
    attention.to(memory_format=torch.channels_last)
    actual = attention(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_heads_that_do_not_divide_the_channels_raise():
    with pytest.raises(ValueError, match="num_heads=3 does not divide the 32 channels"):
        SelfAttention(32, 3)
