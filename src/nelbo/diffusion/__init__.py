"""The mathematics of diffusion models, in the order of the derivation.

    level                  noise levels, given by their log signal-to-noise ratio
    schedules              from a timestep to a noise level
    process                q(x_t | x_0), q(x_t | x_s), q(x_s | x_t, x_0)
    chain                  the levels of a bound or a sampler
    step_cost_table,
    spacings               the levels of a shorter chain
    parameterizations      x0_hat from the network's output
    variances              the variance of p(x_s | x_t)
    denoiser               network + parameterization + variance
    decoders               p(x_0 | x_1)
    bound                  L_0, L_t, L_T
    losses, timesteps      training losses, and the steps they are evaluated at
    samplers               from noise to data
    exact                  denoisers in closed form

Imports torch only. Timesteps are 1..T and t = 0 is data; s is the cleaner end of a step. All terms are in
nats. Noise is always an argument.
"""

from nelbo.diffusion.bound import BoundTerms, Denoise, VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import Decoder, DiscretizedGaussian, GaussianDecoder
from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.gaussian import DiagonalGaussian, kl
from nelbo.diffusion.guidance import Guided
from nelbo.diffusion.level import NoiseLevel, Step
from nelbo.diffusion.losses import P2, VLB, Hybrid, Loss, LossTerms, MinSNR, NoisyBatch, Simple, WeightedMSE
from nelbo.diffusion.parameterizations import X0, Eps, Parameterization, V
from nelbo.diffusion.process import diffuse, marginal, posterior
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, Heun, Sampler, SamplerState
from nelbo.diffusion.schedules import (
    CosineSchedule,
    LinearLogSNRSchedule,
    LinearSchedule,
    NoiseSchedule,
    SigmoidSchedule,
)
from nelbo.diffusion.spacings import Even, Optimal, Quadratic, Spacing, Trailing, UniformLogSNR
from nelbo.diffusion.step_cost_table import StepCostTable
from nelbo.diffusion.timesteps import Importance, Stratified, TimestepSample, TimestepSampler, Uniform
from nelbo.diffusion.variances import (
    Analytic,
    FixedLarge,
    FixedSmall,
    LearnedRange,
    LearnedVariance,
    ReverseVariance,
)

__all__ = [
    "DDIM",
    "P2",
    "VLB",
    "X0",
    "Analytic",
    "Ancestral",
    "BoundTerms",
    "Chain",
    "CosineSchedule",
    "DPMSolverPP",
    "Decoder",
    "Denoise",
    "Denoiser",
    "DiagonalGaussian",
    "DiscretizedGaussian",
    "Eps",
    "Even",
    "FixedLarge",
    "FixedSmall",
    "GaussianDecoder",
    "GaussianMixtureDenoiser",
    "Guided",
    "Heun",
    "Hybrid",
    "Importance",
    "LearnedRange",
    "LearnedVariance",
    "LinearLogSNRSchedule",
    "LinearSchedule",
    "Loss",
    "LossTerms",
    "MinSNR",
    "NoiseLevel",
    "NoiseSchedule",
    "NoisyBatch",
    "Optimal",
    "Parameterization",
    "Prediction",
    "Quadratic",
    "ReverseVariance",
    "Sampler",
    "SamplerState",
    "SigmoidSchedule",
    "Simple",
    "Spacing",
    "Step",
    "StepCostTable",
    "Stratified",
    "TimestepSample",
    "TimestepSampler",
    "Trailing",
    "Uniform",
    "UniformLogSNR",
    "V",
    "VariationalBound",
    "WeightedMSE",
    "diffuse",
    "gaussian_denoiser",
    "kl",
    "marginal",
    "posterior",
]
