# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading the bound
#
# This notebook explains the results of a run: the total bound and what it measures, its error, the distribution of bits over
# the chain, the meaning of the shapes of the curves, and what to change. The charts are those of `report.html`, drawn as
# static figures.
#
# The model is small and trained on the digits with `train.py` in a temporary folder. It takes half a minute and is not a good
# model.

# %%
import math

import matplotlib.pyplot as plt
import torch
from commands import run, scratch
from pictures import COLOURS, INK, draw, panels, trials

import nelbo  # noqa: F401
from nelbo.compose.trained import load_model, read_data
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.decoders import DiscretizedGaussian
from nelbo.diffusion.exact import gaussian_denoiser
from nelbo.diffusion.schedules import CosineSchedule
from nelbo.diffusion.variances import Analytic, FixedLarge, FixedSmall
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import ImportanceEstimator, StratifiedEstimator
from nelbo.evaluation.measure import measure
from nelbo.evaluation.moments import measure_log_mse
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.units import unit_of
from nelbo.reports.html.advice import advise
from nelbo.reports.html.charts import chain, heat_map, learned_variance, rate_distortion, shares
from nelbo.reports.html.entry import make_entries
from nelbo.reports.numbers import plus_minus
from nelbo.runs.run_folder import read_run

folder = scratch() / "digits"
options = "schedule=cosine loss=vlb logger=none model.channels=16 trainer.max_steps=250 trainer.val_check_interval=50"
printed = run("train.py", *options.split(), "callbacks.samples=null", f"hydra.run.dir={folder}")
print(printed[printed.index("variational bound") : printed.index("run  ")])

# %% [markdown]
# ## The total and the ledger
#
# The bound is a code length: the number of bits per pixel for lossless transmission of the test images. $L_0$ is the cost of
# $x_0$ given $x_1$, the terms $L_t$ are the cost from $x_T$ to $x_1$, and $L_T$ is the cost of $x_T$. Two bounds can be
# compared only if they measure the same quantity, which the ledger records.

# %%
report = read_run(folder)
entries = make_entries([report])
for name in (
    "data",
    "split",
    "num_examples",
    "levels",
    "decoder",
    "clip",
    "schedule",
    "T",
    "K",
    "variance",
    "weights",
    "estimator",
    "num_evaluations",
):
    print(f"{name:16} {report.ledger[name]}")

assert math.isclose(
    sum(report.final(f"test/{part}") or math.nan for part in ("L_0", "L_t", "L_T")),
    report.final("test/bpd"),
    rel_tol=1e-6,
)
assert report.ledger["clip"] is None  # clipping x0_hat would be another bound

# %% [markdown]
# ## The standard error
#
# The standard error has two parts. The **Monte Carlo error** comes from noise and timesteps; more network evaluations reduce
# it. The **data set error** exists because 180 images are a sample of all digits; only more images reduce it.
#
# The Monte Carlo error depends on the distribution of timesteps. We run two estimators with the same number of network
# evaluations on the trained model, with twelve seeds each. The reported Monte Carlo error should equal the standard deviation
# between seeds, which twelve seeds determine to about a fifth.

# %%
model = load_model(folder / "checkpoints/last.ckpt")
data, unit = read_data(model), model.module.unit
denoiser, bound = model.module.denoiser, model.module.bound
test = data.take("test", 180)


def test_bound(estimator, *variants):
    return measure(estimator, variants or [BoundVariant(bound)], denoiser, [test], 180, unit)


seeds = range(12)
found = {
    "stratified": [test_bound(StratifiedEstimator(16, seed=seed))[0].estimate for seed in seeds],
    "importance": [
        test_bound(ImportanceEstimator(1.0, evaluations_per_round=13, seed=seed))[0].estimate
        for seed in seeds
    ],
}


def or_nan(error):
    return float("nan") if error is None else error


print(
    f"{'estimator':12}{'evaluations':>13}{'mean':>9}{'error':>9}{'MC':>9}{'seed std':>13}{'data set':>10}   bits/dim"
)
for name, estimates in found.items():
    totals = torch.tensor([e.total.mean for e in estimates]) * unit.per_nat
    error, mc_error = (
        torch.tensor([or_nan(getattr(e.total, part)) for e in estimates]).square().mean().sqrt()
        * unit.per_nat
        for part in ("stderr", "mc_stderr")
    )
    rest = torch.tensor([or_nan(e.total.data_stderr) for e in estimates]).mean() * unit.per_nat
    values = f"{error:9.4f}{mc_error:9.4f}{totals.std():13.4f}{rest:10.4f}".replace("nan", "  -")
    print(f"{name:12}{estimates[0].num_evaluations:13,}{totals.mean():9.4f}{values}")

axis = panels(width=6.6, height=2.4)
for row, estimates in enumerate(found.values()):
    for seed, e in enumerate(estimates):
        y = row + 0.06 * (seed - 5.5)
        axis.errorbar(
            e.total.mean * unit.per_nat,
            y,
            xerr=e.total.stderr * unit.per_nat,
            fmt="o",
            ms=4,
            color=COLOURS[row],
        )
axis.set(
    yticks=(0, 1),
    yticklabels=list(found),
    xlabel="test bound of one seed, bits/dim; bars: its standard error",
)
axis.invert_yaxis()
axis.grid(axis="y", visible=False)
plt.show()

agree = paired_difference(*(torch.tensor([e.total.mean for e in estimates]) for estimates in found.values()))
assert abs(agree.mean) < 4 * agree.stderr + 1e-9
assert found["importance"][0].num_evaluations <= found["stratified"][0].num_evaluations

# %% [markdown]
# The Monte Carlo error of `importance` is smaller at the same cost. For both, the error that one seed reports fits the deviation
# between seeds. The timesteps of `stratified` are spread evenly over the images, which reduces the variance of the mean, and its
# error leaves out the variation of $L_t$ along the chain for that reason. (`docs/bound.md` has more seeds and other estimators.)
#
# ## $L_t$ against $t$
#
# The diamond on the left is $L_0$, and bands are one standard error. Per step, the curve falls by a factor of about 200: a
# step between clean levels costs far more than one between noisy levels, but there are many more noisy levels. The cumulative
# curve shows where the bits are: where it is steep.

# %%
card = chain(entries)
axes = panels(2, height=2.9)
for axis, view in zip(axes, ("per step", "added up from noise"), strict=True):
    draw(axis, card.views[view])
    axis.set_title(view)
plt.show()

# %% [markdown]
# | shape | meaning | what to change |
# |---|---|---|
# | the cumulative curve is flat on the right | these levels contain no information and cost nothing | fewer steps there (notebook 03) |
# | it starts well above 0 at $t = T$ | $L_T$ is not small: the chain ends with signal left | a lower `schedule.logsnr_min`, or `schedule=cosine` |
# | most of its height is in the last decade, $t\le 10$ | the chain starts below the resolution of the data | `schedule.logsnr_max=auto` |
# | the diamond is well above half of the total (DDPM on CIFAR-10: 53%) | the chain starts too noisy for the decoder | a higher `schedule.logsnr_max`, or more steps |
# | a hump in the per-step curve that another run does not have | the network is inaccurate at these levels | train longer, or give these levels more weight: `loss`, `timesteps` |
# | held-out far above training at small $t$ | overfitting | more data, `model.dropout` |
# | wide bands | few draws | more evaluations, or `estimator=importance` |
#
# ## Shares by decade of $t$

# %%
card = shares(entries)
axes = panels(2, height=2.7)
draw(axes[0], card.views["at the end"])
axes[0].legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1)
draw(axes[1], card.views["over training"], legend=False)
plt.show()

parts = {
    name.rpartition("/")[2]: value for name, value in report.summary.items() if name.startswith("test/share/")
}
assert math.isclose(sum(parts.values()), 1.0, abs_tol=1e-6)
print(", ".join(f"{name} {share:.1%}" for name, share in parts.items()))

# %% [markdown]
# The heat map shows when each level is learned. Each column ends at a validation, and the lowest row is $L_0$.

# %%
draw(panels(width=6.6, height=2.8), heat_map(entries).views["validation"])
plt.show()

totals = report.metrics["val/bpd"]
print(f"{'bits/dim at step':18}" + "".join(f"{step:8}" for step in totals.steps))
for name in ("L_0", "t_2_10", "t_11_100", "t_101_1000"):
    part = totals.values * report.metrics[f"val/share/{name}"].values
    print(f"{name:18}" + "".join(f"{value:8.3f}" for value in part) + f"   {part[-1] / part[0] - 1:+.0%}")

# %% [markdown]
# ## Rate and distortion
#
# In transmission from noise to data, the receiver has $x_t$ after all steps down to $t$ and can compute $\hat x_0$. The rate
# is the number of bits sent up to this point, and the distortion is the distance between $\hat x_0$ and the image on a scale
# of 0 to 255. A curve that falls steeply on the left uses few bits for the most visible structure. The open circles are the
# values of DDPM on CIFAR-10, which are not a target for other data. (There, half of all bits describe imperceptible details.)

# %%
axis = panels(width=6.0, height=2.9)
draw(axis, rate_distortion(entries).views["rate and distortion"])
plt.show()

# %% [markdown]
# ## The variance of the reverse steps
#
# The bound under other variances is computed from the same network evaluations. A `BoundVariant` is a bound and a variance,
# and one measurement accepts several. The differences are paired by example: the difficulty of an image is common to all rows
# and cancels, so the errors of differences are far below those of the totals. `analytic` is the best fixed variance of this
# network, measured on the validation split.

# %%
analytic = Analytic(measure_log_mse(bound, denoiser, data.take("val", 180), evaluations=6000))
variances = {
    "learned": None,
    "analytic": analytic,
    "beta (fixed_large)": FixedLarge(),
    "beta-tilde (fixed_small)": FixedSmall(),
}
measured = test_bound(
    StratifiedEstimator(48), *(BoundVariant(bound, variance) for variance in variances.values())
)
print(f"{'variance':26}{'total':>18}{'L_0':>9}{'from learned':>22}   bits/dim")
for name, m in zip(variances, measured, strict=True):
    less = paired_difference(m.examples.sum(1), measured[0].examples.sum(1))
    total = plus_minus(m.estimate.total.mean * unit.per_nat, m.estimate.total.stderr * unit.per_nat)
    from_learned = (
        "" if m is measured[0] else plus_minus(less.mean * unit.per_nat, less.stderr * unit.per_nat)
    )
    print(f"{name:26}{total:>18}{m.estimate.reconstruction.mean * unit.per_nat:9.4f}{from_learned:>22}")

best_fixed = min(m.estimate.denoising.mean for m in measured[2:])
assert measured[1].estimate.denoising.mean < best_fixed  # that is what analytic means

axis = panels(width=6.0, height=2.5)
draw(axis, learned_variance(entries).views["interpolation"])
for y, name in ((0, r"$\tilde\beta_t$"), (1, r"$\beta_t$")):
    axis.text(1.05, y, name, va="center", transform=axis.get_yaxis_transform())
plt.show()

# %% [markdown]
# Compare the column $L_0$ with the difference: the learned variance improves on the fixed variances almost only at step 1, which
# the diamond shows. Over all other steps, the best fixed variance is equally good. This network was trained on 250 batches.

# %% [markdown]
# ## Chains with an exact denoiser
#
# Data with a known denoiser shows the effect of start, end, length and variance of the chain without a network. Each pixel is
# $\mathcal N(0, 0.15^2)$, rounded to 17 levels. Its entropy can be computed, and a good bound is slightly above it.

# %%
std, half_bin = 0.15, 1 / 16
levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
edges = torch.cat([torch.tensor([-math.inf]), levels[:-1] + half_bin, torch.tensor([math.inf])]) / std
p = torch.special.ndtr(edges).diff()
p = p[p > 0]
entropy = -(p * p.log2()).sum().item()

torch.manual_seed(0)
x0 = ((std * torch.randn(256, 64, dtype=torch.float64)) / (2 * half_bin)).round().clamp(-8, 8) * 2 * half_bin
in_bits = unit_of(64, 17).per_nat


def known(variance=None, **schedule):
    """Parts of the bound in bits/dim, with the exact denoiser of the data before it was rounded."""
    full = Chain(CosineSchedule(**({"num_steps": 200, "half_bin": half_bin} | schedule)))
    denoise = gaussian_denoiser((64,), std, variance or FixedLarge())
    terms = VariationalBound(full, DiscretizedGaussian(17)).terms(denoise, x0, lambda i: torch.randn_like(x0))
    return {
        "L_0": terms.reconstruction.mean().item() * in_bits,
        "L_t": terms.denoising.sum(1).mean().item() * in_bits,
        "L_T": terms.prior.mean().item() * in_bits,
    }


chains = {
    "default": known(),
    "starts too clean: logsnr 8": known(logsnr_max=8.0),
    "starts too noisy: logsnr 2": known(logsnr_max=2.0),
    "ends too early: logsnr 1": known(logsnr_min=1.0),
    "too few steps: T = 20": known(num_steps=20),
}
axis = panels(width=7.4, height=2.6)
trials(axis, list(chains), list(chains.values()), "bits/dim")
axis.axvline(entropy, color=INK, ls="--", lw=1, zorder=0)
axis.text(entropy, 1.02, "entropy", fontsize=8.5, ha="center", transform=axis.get_xaxis_transform())
plt.show()

totals = {name: sum(parts.values()) for name, parts in chains.items()}
assert min(totals.values()) > entropy
assert min(totals.values()) == totals["default"]
print(f"entropy {entropy:.3f} bits/dim; above it:")
for name, total in totals.items():
    print(f"{name:28}{total - entropy:+.3f}")

# %% [markdown]
# The gap between the first bar and the entropy has three causes: the chain has only 200 steps, a Gaussian approximates a
# distribution over 17 levels, and the denoiser is that of the data before rounding.

# %% [markdown]
# ## Advice in the report
#
# The report contains the checks of the table above as advice. The code prints the advice for this run and for a run with the
# published start of the cosine schedule, and then runs the command that writes the report. Every run folder already contains
# a report.

# %%
clean = scratch() / "clean"
few = "trainer.max_steps=50 trainer.val_check_interval=50 schedule.logsnr_max=paper callbacks.samples=null"
run("train.py", *options.split(), *few.split(), f"hydra.run.dir={clean}")
for name, one in (("this run", report), ("published start, 50 steps", read_run(clean))):
    found = [f"- {advice.found} {advice.change}" for advice in advise(one)]
    print(f"{name}:", *(found or ["- nothing to change"]), "", sep="\n")
assert advise(read_run(clean))
print(run("-m nelbo report", str(folder), "--output", str(folder / "page.html")).replace(str(folder), "RUN"))
print(f"{(folder / 'page.html').stat().st_size / 1e6:.1f} MB, opens with no network")
