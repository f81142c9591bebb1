"""The mathematics of diffusion models, in the order of the derivation.

    level                  noise levels, given by their log signal-to-noise ratio
    schedules              from a timestep to a noise level
    process                q(x_t | x_0), q(x_t | x_s), q(x_s | x_t, x_0)
    chain                  the levels of a bound or a sampler
    step_cost_table,
    spacings               the levels of a shorter chain
    noise_conditioning     what the network receives for the noise level
    parameterizations      x0_hat from the network's output
    variances              the variance of p(x_s | x_t)
    denoiser               network + parameterization + variance
    decoders               p(x_0 | x_1)
    bound                  L_0, L_t, L_T
    losses, timesteps      training losses, and the steps they are evaluated at
    samplers               from noise to data
    likelihood             probability-flow ODE, importance-weighted bound
    exact                  denoisers in closed form

Imports torch only. Timesteps are 1..T and t = 0 is data; s is the cleaner end of a step. All terms are in
nats. Noise is always an argument.
"""

from nelbo.diffusion.bound import BoundTerms, Denoise, VariationalBound
from nelbo.diffusion.chain import Chain, ContinuousTime, LevelChain, StepSequence, full_chain
from nelbo.diffusion.decoders import Decoder, DiscretizedGaussian, GaussianDecoder, Softmax
from nelbo.diffusion.denoiser import Denoiser, Prediction
from nelbo.diffusion.exact import GaussianMixtureDenoiser, gaussian_denoiser
from nelbo.diffusion.gaussian import DiagonalGaussian, kl
from nelbo.diffusion.guidance import Guided
from nelbo.diffusion.level import InfinitesimalStep, NoiseLevel, Step
from nelbo.diffusion.losses import (
    P2,
    VLB,
    EDMLoss,
    FlowLoss,
    Hybrid,
    LogSNRDensityMSE,
    Loss,
    LossTerms,
    MinSNR,
    NoisyBatch,
    Simple,
    Uncertainty,
    WeightedMSE,
)
from nelbo.diffusion.noise_conditioning import (
    LogSigmaConditioning,
    LogSNRConditioning,
    NoiseConditioning,
    TimestepConditioning,
)
from nelbo.diffusion.parameterizations import (
    EDM,
    X0,
    Categorical,
    Eps,
    Flow,
    LinearParameterization,
    Parameterization,
    V,
)
from nelbo.diffusion.process import diffuse, marginal, posterior
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, EDMSampler, Heun, Sampler, SamplerState
from nelbo.diffusion.schedules import (
    AdaptiveSchedule,
    CosineSchedule,
    EDMSchedule,
    LearnedEnds,
    LearnedNet,
    LinearLogSNRSchedule,
    LinearSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    SigmoidSchedule,
)
from nelbo.diffusion.spacings import Even, Karras, Optimal, Quadratic, Spacing, Trailing, UniformLogSNR
from nelbo.diffusion.step_cost_table import StepCostTable
from nelbo.diffusion.timesteps import (
    EntropyRate,
    Importance,
    LogitNormal,
    LogNormal,
    Stratified,
    TimestepSample,
    TimestepSampler,
    Uniform,
)
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
    "EDM",
    "P2",
    "VLB",
    "X0",
    "AdaptiveSchedule",
    "Analytic",
    "Ancestral",
    "BoundTerms",
    "Categorical",
    "Chain",
    "ContinuousTime",
    "CosineSchedule",
    "DPMSolverPP",
    "Decoder",
    "Denoise",
    "Denoiser",
    "DiagonalGaussian",
    "DiscretizedGaussian",
    "EDMLoss",
    "EDMSampler",
    "EDMSchedule",
    "EntropyRate",
    "Eps",
    "Even",
    "FixedLarge",
    "FixedSmall",
    "Flow",
    "FlowLoss",
    "GaussianDecoder",
    "GaussianMixtureDenoiser",
    "Guided",
    "Heun",
    "Hybrid",
    "Importance",
    "InfinitesimalStep",
    "Karras",
    "LearnedEnds",
    "LearnedNet",
    "LearnedRange",
    "LearnedVariance",
    "LevelChain",
    "LinearLogSNRSchedule",
    "LinearParameterization",
    "LinearSchedule",
    "LogNormal",
    "LogSNRConditioning",
    "LogSNRDensityMSE",
    "LogSigmaConditioning",
    "LogitNormal",
    "Loss",
    "LossTerms",
    "MinSNR",
    "NoiseConditioning",
    "NoiseLevel",
    "NoiseSchedule",
    "NoisyBatch",
    "Optimal",
    "Parameterization",
    "Prediction",
    "Quadratic",
    "RectifiedFlowSchedule",
    "ReverseVariance",
    "Sampler",
    "SamplerState",
    "SigmoidSchedule",
    "Simple",
    "Softmax",
    "Spacing",
    "Step",
    "StepCostTable",
    "StepSequence",
    "Stratified",
    "TimestepConditioning",
    "TimestepSample",
    "TimestepSampler",
    "Trailing",
    "Uncertainty",
    "Uniform",
    "UniformLogSNR",
    "V",
    "VariationalBound",
    "WeightedMSE",
    "diffuse",
    "full_chain",
    "gaussian_denoiser",
    "kl",
    "marginal",
    "posterior",
]
