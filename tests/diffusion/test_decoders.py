import hypothesis.strategies as st
import mpmath
import pytest
import torch
from hypothesis import given
from torch.distributions import Normal

from nelbo.diffusion.decoders import DiscretizedGaussian, GaussianDecoder, Softmax

LEVELS = pytest.mark.parametrize("levels", [2, 17, 256])


def grid(levels, dtype=torch.float64):
    return torch.linspace(-1, 1, levels, dtype=torch.float64).to(dtype)


def log_var(sigma, levels):
    """Log variance of a deviation of so many bins."""
    return 2 * (torch.tensor(2.0 * sigma / (levels - 1), dtype=torch.float64)).log()


def exact_log_mass(x, mean, sigma, levels):
    """log P of the bin of x, by erfc to 50 digits."""
    x, mean, sigma = mpmath.mpf(x), mpmath.mpf(mean), mpmath.mpf(sigma)
    half = mpmath.mpf(1) / (levels - 1)
    sign = -1 if x > mean else 1  # mirrored, so that the two tails are small and not both nearly 1

    def tail(edge):
        return mpmath.erfc(sign * (mean - edge) / sigma / mpmath.sqrt(2)) / 2

    upper = (1 if sign == 1 else 0) if x > 1 - half else tail(x + half)
    lower = (0 if sign == 1 else 1) if x < -1 + half else tail(x - half)
    return mpmath.log(abs(upper - lower))


# ------------------------------------------------------------------ discretized Gaussian


@given(mean=st.floats(-5, 5), log10_sigma=st.floats(-3, 2))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@LEVELS
def test_probabilities_add_up_to_1(levels, dtype, mean, log10_sigma):
    """From a thousandth of a bin to a hundred bins, the mean inside and far outside."""
    decoder = DiscretizedGaussian(levels)
    x0 = grid(levels, dtype)
    log_p = decoder.log_prob(x0, torch.full_like(x0, mean), log_var(10.0**log10_sigma, levels))
    assert log_p.dtype == dtype
    # neighbouring bins miss or overlap each other by the rounding of the data, in units of sigma
    sigma = 10.0**log10_sigma * 2 / (levels - 1)
    assert log_p.double().logsumexp(0).abs() < 16 * torch.finfo(dtype).eps * (1 + 1 / sigma)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 10.0, 100.0])
@LEVELS
def test_every_probability_is_exact_however_small(levels, sigma):
    """Relative precision of log P down to probabilities like exp(-1e11), where a clamp would hide them."""
    x0 = grid(levels)
    means = torch.tensor([-1.9, -1.0, -0.3, 0.004, 0.7, 3.0], dtype=torch.float64)
    scale = log_var(sigma, levels)
    actual = DiscretizedGaussian(levels).log_prob(x0[:, None], means, scale)
    deviation = mpmath.exp(mpmath.mpf(scale.item()) / 2)
    expected = [
        [float(exact_log_mass(x, mean, deviation, levels)) for mean in means.tolist()] for x in x0.tolist()
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    # log P is as precise as the edges in units of sigma; near P = 1 it is 0 to rounding
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@LEVELS
def test_gradients_are_finite_everywhere(levels, dtype, sigma):
    x0 = grid(levels, dtype)[:, None]
    mean = torch.linspace(-4, 4, 41, dtype=dtype).expand(levels, 41).clone().requires_grad_()
    scale = log_var(sigma, levels).to(dtype).expand(levels, 41).clone().requires_grad_()
    DiscretizedGaussian(levels).log_prob(x0, mean, scale).sum().backward()
    assert mean.grad.isfinite().all()
    assert scale.grad.isfinite().all()


@pytest.mark.parametrize("cdf", ["exact", "tanh"])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_gradients_are_those_of_finite_differences(cdf, sigma):
    x0 = grid(17)
    # off the grid by less than what tanh's clamp at 1e-12 would flatten
    mean = (x0 + 0.03).requires_grad_()
    scale = log_var(sigma, 17).expand(17).clone().requires_grad_()
    decoder = DiscretizedGaussian(17, cdf)
    assert torch.autograd.gradcheck(lambda m, s: decoder.log_prob(x0, m, s), (mean, scale))


def test_tanh_is_the_published_computation():
    """improved_diffusion/losses.py, discretized_gaussian_log_likelihood, rewritten line by line."""
    x0 = grid(256)[:, None]
    mean = torch.linspace(-1.2, 1.2, 49, dtype=torch.float64)
    for sigma in (0.2, 1.0, 30.0):
        log_std = 0.5 * log_var(sigma, 256)

        def phi(x):
            return 0.5 * (1.0 + torch.tanh((2.0 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))

        inverse = torch.exp(-log_std)
        plus, minus = phi(inverse * (x0 - mean + 1 / 255)), phi(inverse * (x0 - mean - 1 / 255))
        expected = torch.where(
            x0 < -0.999,
            plus.clamp(min=1e-12).log(),
            torch.where(
                x0 > 0.999, (1 - minus).clamp(min=1e-12).log(), (plus - minus).clamp(min=1e-12).log()
            ),
        )
        actual = DiscretizedGaussian(256, "tanh").log_prob(x0, mean, 2 * log_std)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)


def test_tanh_is_close_to_exact_in_the_centre_and_not_a_bound_in_the_tails():
    x0 = grid(256)
    exact, tanh = (
        DiscretizedGaussian(256, cdf).log_prob(x0, torch.zeros_like(x0), log_var(8.0, 256))
        for cdf in ("exact", "tanh")
    )
    middle = slice(112, 144)
    torch.testing.assert_close(tanh[middle], exact[middle], rtol=2e-3, atol=0)
    assert tanh[0].item() == pytest.approx(-27.631, abs=1e-3)  # log(1e-12)
    assert exact[0] < -100


def test_four_levels_by_hand():
    x0 = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0], dtype=torch.float64)
    log_p = DiscretizedGaussian(4).log_prob(x0, torch.full_like(x0, 0.2), torch.tensor(-1.0))
    cdf = Normal(0.2, torch.tensor(-0.5).double().exp()).cdf(x0[:-1] + 1 / 3)
    expected = torch.cat([cdf, cdf.new_ones(1)]) - torch.cat([cdf.new_zeros(1), cdf])
    torch.testing.assert_close(log_p.exp(), expected)


def test_continuous_data_have_no_bins():
    with pytest.raises(ValueError, match="this data is continuous: use decoder=gaussian"):
        DiscretizedGaussian(None)


def test_an_unknown_cdf_raises():
    with pytest.raises(ValueError, match=r"decoder\.cdf=logistic: expected one of exact, tanh"):
        DiscretizedGaussian(256, "logistic")


def test_str_names_levels_and_cdf():
    assert str(DiscretizedGaussian(17, "tanh")) == "discretized Gaussian, 17 levels, tanh CDF"
    assert str(GaussianDecoder()) == "Gaussian density"


# ------------------------------------------------------------------ Gaussian density


def test_the_density_of_continuous_data():
    x0, mean = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_p = GaussianDecoder().log_prob(x0, mean, torch.tensor(-1.0, dtype=torch.float64))
    torch.testing.assert_close(log_p, Normal(mean, torch.tensor(-0.5).double().exp()).log_prob(x0))


def test_a_density_of_discrete_data_raises():
    with pytest.raises(ValueError, match="256 discrete levels: use decoder=discretized_gaussian"):
        GaussianDecoder(256)


def test_softmax_is_the_softmax_over_all_levels_with_its_gradient():
    z = torch.linspace(-1.3, 1.3, 64, dtype=torch.float64).reshape(4, 16).requires_grad_()
    log_var = torch.tensor([[-8.0], [-3.0], [0.0], [2.0]], dtype=torch.float64, requires_grad=True)
    decoder, k = Softmax(21), torch.arange(64).reshape(4, 16) % 21
    values = torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    logits = -0.5 * (z[..., None] - values).square() / log_var.exp()[..., None]
    expected = logits.log_softmax(-1).gather(-1, k[..., None])[..., 0]
    ours = decoder.log_prob(values[k], z, log_var)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    for ours_grad, theirs in zip(
        torch.autograd.grad(ours.sum(), (z, log_var)),
        torch.autograd.grad(expected.sum(), (z, log_var)),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, theirs, rtol=1e-8, atol=1e-8)


def test_softmax_keeps_few_tensors_for_the_backward_pass():
    kept: list[torch.Tensor] = []
    z = torch.zeros(2, 3, 4, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        Softmax(256).log_prob(torch.zeros_like(z.detach()), z, torch.zeros(2, 1, 1, 1))
    assert sum(x.numel() for x in kept) < 50 * z.numel()  # of 256 levels


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
@pytest.mark.parametrize(
    "decoder", [DiscretizedGaussian(5), DiscretizedGaussian(5, cdf="tanh"), Softmax(5)], ids=str
)
def test_levels_are_drawn_with_their_probabilities(decoder, sigma):
    n, x0 = 20_000, grid(5)
    means = torch.tensor([-1.3, -0.2, 0.6], dtype=torch.float64)
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = decoder.sample(means.expand(n, 3), log_var(sigma, 5), noise)
    p = decoder.log_prob(x0[:, None], means, log_var(sigma, 5)).exp()
    for level, expected in zip(x0, p, strict=True):
        frequency = (drawn == level).double().mean(0)
        assert ((frequency - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt() + 1e-4).all()


def test_values_of_the_gaussian_decoder_are_drawn_from_its_density():
    mean, noise = torch.tensor([[0.3]]), torch.tensor([[2.0]], dtype=torch.float64)
    drawn = GaussianDecoder().sample(mean, torch.tensor(0.25).log(), noise)
    torch.testing.assert_close(drawn, torch.tensor([[1.3]], dtype=torch.float64), rtol=1e-6, atol=0)
