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
