"""Polynomial interpolation of smooth functions between Chebyshev points.

The barycentric formula (Berrut & Trefethen 2004, "Barycentric Lagrange interpolation", equation 5.4). Its
error decreases geometrically with the number of points.
"""

import math

import torch
from torch import Tensor


def chebyshev_points(low: float, high: float, count: int) -> Tensor:
    """(count,) float64, increasing from ``low`` to ``high``, dense at both ends. ``count`` >= 2."""
    z = torch.cos(math.pi * torch.arange(count, dtype=torch.float64) / (count - 1))
    return 0.5 * (low + high) - 0.5 * (high - low) * z


def interpolation_matrix(points: Tensor, x: Tensor) -> Tensor:
    """(N, P) float64, which maps values at Chebyshev points (P,) to values at ``x`` (N,)."""
    weights = torch.ones_like(points)
    weights[1::2] = -1.0
    weights[[0, -1]] *= 0.5
    distance = x[:, None] - points
    is_point = distance == 0.0
    shares = weights / distance.where(~is_point, torch.ones_like(distance))
    shares = shares / shares.sum(1, keepdim=True)
    return torch.where(is_point.any(1, keepdim=True), is_point.double(), shares)
