"""Advice on a learned variance that does not use the room between its limits.

For short steps the best place between them is v = MSE / (1 - alpha_bar), the mean squared error of x0_hat
against the variance of the noise: from :class:`~nelbo.diffusion.variances.Analytic`'s variance, put where
log beta and log beta-tilde are. So v = 0 where the network takes away all of the noise, as it can for data
at a point, and v = 1 where it takes away none, as nobody can for N(0, I): the two cases for which DDPM's
fixed variances are optimal (Improved DDPM, section 3.1).
"""

from nelbo.reports.html.advice.advice import Advice
from nelbo.reports.html.bins import binned, log_bins, parts
from nelbo.runs.run_folder import Run

AT_LOWER, AT_UPPER = 0.02, 0.98
VISIBLE_SHARE = 0.05  # of the bound, in steps at a limit
CHANGES = {
    "lower limit, beta-tilde,": (
        "There x0_hat is free of nearly all of the noise, as if the data were a few points, and "
        "variance=fixed_small would do as well for these steps (L_0 depends on variance.first_step). "
        "If they are the cleanest ones, a lower schedule.logsnr_max leaves them out."
    ),
    "upper limit, beta,": (
        "There x0_hat is hardly freer of noise than x_t. Either the network has learned little at these "
        "levels, and should be trained for longer; or the data is as random as N(0, I) there, and "
        "variance=fixed_large would do as well for these steps (L_0 depends on variance.first_step)."
    ),
}


def variance_at_a_limit(run: Run) -> Advice | None:
    """The learned variance is at one of its limits where the bound is large."""
    found = run.last_table()
    if found is None:
        return None
    split, terms = found
    table = binned(terms, log_bins([terms]))
    value, fraction = parts(table)[0][1:], table.fraction[1:]  # at L_0 the limits are others
    # parts of a density's bound may be negative, those of L_t are not
    whole = parts(table)[0].sum() + run.prior(split) if run.is_discrete else value.sum()
    for limit, inside in zip(CHANGES, (fraction < AT_LOWER, fraction > AT_UPPER), strict=True):
        if value[inside].sum() > VISIBLE_SHARE * whole:
            return Advice(
                f"The learned variance is at its {limit} in steps that hold "
                f"{value[inside].sum() / whole:.0%} of {'the bound' if run.is_discrete else 'L_t'}.",
                CHANGES[limit],
            )
    return None
