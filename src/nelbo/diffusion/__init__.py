"""The mathematics of diffusion models, in the order in which the theory builds it.

    level                  a noise level is its log signal-to-noise ratio
    schedules              from a timestep to a noise level
    process                q(x_t | x_0), q(x_t | x_s), q(x_s | x_t, x_0)
    chain                  the levels that a bound or a sampler visits
    step_costs, spacings   which levels a shorter chain visits
    parameterizations      x0_hat from the network's output
    variances              the variance of p(x_s | x_t)
    denoiser               network + parameterization + variance
    decoders               p(x_0 | x_1)
    bound                  L_0, L_t, L_T
    losses, timesteps      what is minimised, and where on the chain
    samplers               from noise to data
    exact                  denoisers in closed form

Imports torch and nothing else. Timesteps are 1..T and t = 0 is data; s is the cleaner end of a step. All
is in nats. Noise is an argument, never drawn out of sight.
"""
