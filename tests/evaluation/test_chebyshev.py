import pytest
import torch

from nelbo.evaluation.chebyshev import chebyshev_points, interpolation_matrix

X = torch.linspace(-3.0, 0.5, 101, dtype=torch.float64)


def interpolated(f, count):
    points = chebyshev_points(-3.0, 0.5, count)
    return interpolation_matrix(points, X) @ f(points)


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_polynomials_are_interpolated_exactly(count):
    for degree in range(count):
        torch.testing.assert_close(interpolated(lambda x: x**degree, count), X**degree)  # noqa: B023


def test_the_error_falls_geometrically():
    errors = [(interpolated(torch.exp, count) - X.exp()).abs().max().item() for count in (4, 8, 16)]
    assert errors[0] < 1e-1
    assert errors[1] < 1e-4
    assert errors[2] < 1e-13


def test_points_are_ordered_and_reach_both_ends():
    points = chebyshev_points(-3.0, 0.5, 16)
    assert (points.diff() > 0).all()
    assert points[[0, -1]].tolist() == [-3.0, 0.5]


def test_values_at_the_points_are_those_given():
    points = chebyshev_points(-1.0, 2.0, 7)
    torch.testing.assert_close(interpolation_matrix(points, points), torch.eye(7, dtype=torch.float64))
