"""Likelihood beyond the bound.

probability_flow    log p by the probability-flow ODE
divergence          the trace of its Jacobian: exact, or Hutchinson's estimate
solvers             fixed-step methods, and the interface of others
dequantization      from quantised data to a density
importance          importance-weighted bound over trajectories of the forward process
sandwich            samples of the chain, with the exact posterior draws that bound log p from above
"""

from nelbo.diffusion.likelihood.dequantization import (
    DecoderDequantization,
    Dequantization,
    NoDequantization,
    UniformDequantization,
)
from nelbo.diffusion.likelihood.divergence import Divergence, ExactDivergence, HutchinsonDivergence
from nelbo.diffusion.likelihood.importance import (
    effective_sample_size,
    log_mean_weight,
    log_weight,
    variance_of_log_mean,
)
from nelbo.diffusion.likelihood.probability_flow import FlowLogProb, ProbabilityFlow
from nelbo.diffusion.likelihood.sandwich import ChainSample, sample_chain
from nelbo.diffusion.likelihood.solvers import RK4, FixedStepSolver, HeunSolver, Solution, Solver

__all__ = [
    "RK4",
    "ChainSample",
    "DecoderDequantization",
    "Dequantization",
    "Divergence",
    "ExactDivergence",
    "FixedStepSolver",
    "FlowLogProb",
    "HeunSolver",
    "HutchinsonDivergence",
    "NoDequantization",
    "ProbabilityFlow",
    "Solution",
    "Solver",
    "UniformDequantization",
    "effective_sample_size",
    "log_mean_weight",
    "log_weight",
    "sample_chain",
    "variance_of_log_mean",
]
