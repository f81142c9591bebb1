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
# # Choosing a chain
#
# A chain is a list of noise levels. The full chain has all levels that the network was trained on; a shorter chain has $K$ of
# them. For the bound, the best choice can be computed: the bound of a chain is a sum over pairs of adjacent levels, so the best
# chain is a shortest path (Watson et al. 2021). We measure the cost of every step between two levels, compute the best chains
# and the loss from fewer steps, and then look at samples, for which other chains are better.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from commands import run, scratch
from pictures import COLOURS, INK, images, panels

import nelbo  # noqa: F401
from nelbo.compose.trained import load_model, read_data
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.diffusion.samplers import DDIM, Ancestral, DPMSolverPP, Heun
from nelbo.diffusion.spacings import Even, Optimal, Quadratic, Trailing, UniformLogSNR
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import FullEstimator
from nelbo.evaluation.measure import measure
from nelbo.evaluation.measure_step_costs import measure_step_costs
from nelbo.evaluation.paired import paired_difference
from nelbo.evaluation.sample_metrics import make_reference, sample_quality
from nelbo.evaluation.sample_metrics.features import Pixels

folder = scratch()
options = (
    "schedule=cosine schedule.num_steps=200 loss=vlb logger=none model.channels=16 trainer.max_steps=250"
)
run("train.py", *options.split(), "callbacks.samples=null", f"hydra.run.dir={folder / 'digits'}")
model = load_model(folder / "digits/checkpoints/last.ckpt")
data, unit = read_data(model), model.module.unit
denoiser, bound = model.module.denoiser, model.module.bound
schedule, T = bound.chain.schedule, bound.chain.num_steps
print(f"T = {T}, logsnr from {schedule.table()[0]:.2f} down to {schedule.table()[-1]:.2f}")

# %% [markdown]
# ## The cost of a step
#
# For levels $s < t$, the step costs $\mathbb E\,\mathrm{KL}\big(q(x_s\mid x_t,x_0)\,\|\,p(x_s\mid x_t)\big)$. The network
# predicts $\hat x_0$ from $x_t$ independently of $s$, so $T$ evaluations per example give all $T(T-1)/2$ steps. The costs are
# measured on the validation split, so that the choice does not depend on the test split.

# %%
costs = measure_step_costs(bound, denoiser, data.take("val", 24).x0)

every = costs.total(torch.arange(1, T + 1))
by_hand = costs.first[0, 1] + costs.step.diagonal(1).sum() + costs.prior[-1]
assert abs(every - by_hand) < 1e-6 * every
print(f"the full chain by the table of costs: {every * unit.per_nat:.4f} bits/dim (24 validation images)")

bits = (costs.step * unit.per_nat).masked_fill(costs.step.isinf(), torch.nan)
axes = panels(2, height=3.0, width_ratios=(1.2, 1))
mesh = axes[0].pcolormesh(
    costs.timesteps, costs.timesteps, bits.log10(), cmap="viridis", vmin=-4, vmax=1, rasterized=True
)
bar = plt.colorbar(mesh, ax=axes[0], label="bits/dim", pad=0.02)
bar.set_ticks(range(-4, 2), labels=[f"$10^{{{k}}}$" for k in range(-4, 2)])
axes[0].set(xlabel="from level t", ylabel="to level s", title="the cost of a step")
axes[0].grid(visible=False)
for t, colour in zip((25, 75, 150, 200), COLOURS, strict=False):
    single = (
        torch.stack([costs.step[s : t - 1, s + 1 : t].diagonal().sum() for s in range(t - 1)]) * unit.per_nat
    )
    axes[1].plot(range(1, t), bits[: t - 1, t - 1] - single, color=colour, label=f"from t = {t}")
axes[1].set(
    xlabel="to level s",
    ylabel="bits/dim",
    title="more than the same way in single steps",
    yscale="log",
    ylim=(1e-4, 100),
)
axes[1].legend(loc="upper right")
plt.show()

# %% [markdown]
# A long step costs more than the short steps that it replaces, because a single Gaussian replaces the composition of several.
# The difference depends on the position of the step, so the choice of the chain matters.
#
# ## The best chains
#
# $$V_1[t] = L_0 \text{ from } t, \qquad V_k[t] = \min_{s<t}\big(V_{k-1}[s] + \mathrm{cost}(s, t)\big), \qquad
# \min_t\big(V_K[t] + L_T[t]\big).$$
#
# Each row is a chain of $K$ levels against logsnr, with data on the left.

# %%
spacings = {
    "even": Even(),
    "trailing": Trailing(),
    "quadratic": Quadratic(),
    "uniform logsnr": UniformLogSNR(),
    "optimal": Optimal(costs),
}
lengths = (4, 8, 16, 32, 64)

axis = panels(height=2.5)
names = []
for name, spacing in spacings.items():
    for K in (8, 16):
        level = spacing.chain(schedule, K).level(torch.arange(1, K + 1))
        colour = COLOURS[1] if name == "optimal" else COLOURS[0]
        axis.plot(level.logsnr, [len(names)] * K, "|", ms=9, mew=1.6, color=colour)
        names.append(f"{name}, {K}")
axis.set(yticks=range(len(names)), yticklabels=names, xlabel="logsnr", xlim=(6.2, -17.5))
axis.invert_yaxis()
plt.show()

# no chain of 8 has a lower cost: try 2000 at random, and every neighbour of the best
best = spacings["optimal"].timesteps(schedule, 8)
source = torch.Generator().manual_seed(0)
rivals = [(torch.randperm(T, generator=source)[:8] + 1).sort().values for _ in range(2000)]
for i in range(8):
    for shift in (-1, 1):
        moved = best.clone()
        moved[i] += shift
        if moved[0] >= 1 and moved[-1] <= T and (moved.diff() > 0).all():
            rivals.append(moved)
assert min(costs.total(rival) for rival in rivals) >= costs.total(best)
print(f"best chain of 8: {best.tolist()}")

# %% [markdown]
# The best chains have most of their levels between logsnr 5 and 0. They end before the noisiest level, because the cost of the
# prior is already negligible there. They begin with two close levels: with `first_step=beta_tilde`, step 1 has the variance
# of step 2, which is small if step 2 is short.
#
# ## The loss from fewer steps
#
# The table gives the bound of all chains. For some chains it is also measured on the test split, with all terms of all images.
# The table is an expectation over 24 validation images with one draw of noise. It ranks chains reliably because all chains use
# the same noise at every level.

# %%
test = data.take("test", 180)


def test_bound(chain):
    return measure(
        FullEstimator(), [BoundVariant(VariationalBound(chain, bound.decoder))], denoiser, [test], 180, unit
    )[0]


by_table = {
    name: [costs.total(spacing.timesteps(schedule, K)) * unit.per_nat for K in lengths]
    for name, spacing in spacings.items()
}
measured = {
    (name, K): test_bound(spacings[name].chain(schedule, K))
    for name in ("even", "quadratic", "optimal")
    for K in (8, 16, 32)
}
whole = test_bound(Chain(schedule))

print(
    "test bound, bits/dim" + "".join(f"{'K = ' + str(K):>12}" for K in (8, 16, 32)) + f"{'K = ' + str(T):>12}"
)
for name in ("even", "quadratic", "optimal"):
    values = [measured[name, K].estimate.total.mean * unit.per_nat for K in (8, 16, 32)]
    print(
        f"{name:20}"
        + "".join(f"{value:12.4f}" for value in values)
        + f"{whole.estimate.total.mean * unit.per_nat:12.4f}"
    )
print("\noptimal less even, paired")
for K in (8, 16, 32):
    less = paired_difference(measured["optimal", K].examples.sum(1), measured["even", K].examples.sum(1))
    assert less.mean < -3 * less.stderr
    print(f"K = {K:2}: {less.mean * unit.per_nat:+.4f} ± {less.stderr * unit.per_nat:.4f}")

axis = panels(width=6.6, height=2.8)
for (name, values), colour in zip(by_table.items(), COLOURS, strict=False):
    axis.plot(lengths, np.array(values) - every * unit.per_nat, "o-", ms=3.5, color=colour, label=name)
axis.set(xscale="log", yscale="log", xlabel="K", ylabel=f"more than with all {T} steps, bits/dim")
axis.set_xticks(lengths, labels=lengths)
axis.minorticks_off()
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

assert all(
    by_table["optimal"][i] <= min(values[i] for values in by_table.values()) + 1e-9
    for i in range(len(lengths))
)

# %% [markdown]
# ## Chains for samples
#
# The bound counts every bit, and most bits distinguish adjacent grey levels. The quality of samples depends on their shapes,
# which are determined at noisy levels. The chain with the best bound therefore need not give the best samples. The table has
# both for every spacing at 8 steps: the bound, and the Fréchet distance between the pixels of 256 samples and of the training
# images. Lower is better; with 256 samples, the distance is biased upwards.

# %%
features = Pixels()
RANGE = data.spec.range
reference = make_reference(data, "train", features, cache=str(folder))
floor = sample_quality(data.take("test", 180).x0, reference, features)["fd_pixels"]


def samples(sampler, chain, n=256, seed=0):
    source = torch.Generator().manual_seed(seed)
    xT = torch.randn(n, 1, 8, 8, generator=source)
    return sampler.sample(denoiser, chain, xT, lambda i: torch.randn(xT.shape, generator=source)).clamp(-1, 1)


def distance(sampler, chain):
    """fd_pixels over four seeds: mean, and how far the seeds lie apart."""
    found = [
        sample_quality(samples(sampler, chain, seed=seed), reference, features)["fd_pixels"]
        for seed in range(4)
    ]
    return np.mean(found), np.std(found, ddof=1)


rows = []
for name, spacing in spacings.items():
    chain = spacing.chain(schedule, 8)
    value = costs.total(chain.t()) * unit.per_nat
    rows.append((name, value, distance(DDIM(clip=RANGE), chain), distance(Ancestral(clip=RANGE), chain)))

print(f"{'8 steps':18}{'bound':>10}{'fd, ddim':>16}{'fd, ancestral':>18}")
for name, value, ddim, ancestral in rows:
    print(f"{name:18}{value:10.3f}{ddim[0]:10.2f} ± {ddim[1]:.2f}{ancestral[0]:12.2f} ± {ancestral[1]:.2f}")
print(f"\n180 held-out images in place of samples: {floor:.2f}")

rows.sort(key=lambda row: row[1])
axis = panels(width=6.6, height=2.5)
for y, (_, _, ddim, ancestral) in enumerate(rows):
    axis.plot([ddim[0], ancestral[0]], [y, y], color="#d9dee6", lw=3, zorder=1)
    axis.errorbar(ddim[0], y, xerr=ddim[1], fmt="o", color=COLOURS[0], label=None if y else "DDIM")
    axis.errorbar(
        ancestral[0], y, xerr=ancestral[1], fmt="s", color=COLOURS[1], label=None if y else "ancestral"
    )
axis.set(
    xlabel="fd_pixels, left is better; bars: how far seeds lie apart",
    title="8 steps, the best bound at the top",
)
axis.set_yticks(range(len(rows)), labels=[f"{name}, {value:.3f} bits/dim" for name, value, _, _ in rows])
axis.invert_yaxis()
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

by_name = {name: (value, ddim) for name, value, ddim, _ in rows}
assert by_name["optimal"][0] < by_name["trailing"][0]
(better, far), (worse, apart) = by_name["trailing"][1], by_name["optimal"][1]
assert worse - better > 2 * np.hypot(far, apart) / 2  # of means of four seeds

# %% [markdown]
# Here the chain with the best bound gives worse samples with DDIM than even strides: it has too few levels where the shape of
# a digit is determined. The reverse order does not hold either: uniform logsnr is bad for both. The result depends on sampler
# and model. For the default model, trained four times as long, the optimal chain is the best chain for `dpm_solver_pp` with 5
# steps (`docs/sampling.md`). Use the bound to compare models, and the quality of samples to choose the steps of a sampler.

# %% [markdown]
# ## Samplers
#
# Samplers differ in the step that they take on a chain. Ancestral sampling draws from the $p(x_{t-1}\mid x_t)$ of the bound.
# The others solve the deterministic ODE with the same marginals. Heun evaluates the network nearly twice per step, so it uses
# half the number of steps here.

# %%
budgets = (5, 10, 20, 40)  # network evaluations
samplers = {
    "ancestral": Ancestral(clip=RANGE),
    "DDIM": DDIM(clip=RANGE),
    "DPM-Solver++ (2M)": DPMSolverPP(clip=RANGE),
    "Heun": Heun(clip=RANGE),
}
found, shown = {}, {}
for name, sampler in samplers.items():
    for budget in budgets:
        chain = Trailing().chain(schedule, (budget + 1) // 2 if name == "Heun" else budget)
        drawn = samples(sampler, chain)
        found[name, budget] = (
            sampler.evaluations(chain),
            sample_quality(drawn, reference, features)["fd_pixels"],
        )
        shown[name, budget] = drawn[:10]

axis = panels(width=6.6, height=2.7)
for name, colour in zip(samplers, COLOURS, strict=False):
    x, y = zip(*(found[name, budget] for budget in budgets), strict=True)
    axis.plot(x, y, "o-", ms=4, color=colour, label=name)
axis.axhline(floor, color=INK, ls="--", lw=1)
axis.text(5, floor, "180 held-out images", fontsize=8.5, va="bottom")
axis.set(xscale="log", xlabel="network evaluations per sample", ylabel="fd_pixels", ylim=(0, None))
axis.set_xticks(budgets, labels=budgets)
axis.minorticks_off()
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
print("evaluations and fd_pixels")
for name in samplers:
    print(
        f"{name:19}" + "".join(f"{e:5}: {fd:6.2f}" for e, fd in (found[name, budget] for budget in budgets))
    )

# %%
axes = panels(3, rows=5, height=3.6, width=8.6)
for row, name in zip(axes[:4], samplers, strict=True):
    for axis, budget in zip(row, (5, 10, 40), strict=True):
        images(axis, shown[name, budget].numpy(), 10, f"{name}, {found[name, budget][0]} evaluations")
for axis in axes[4]:
    axis.axis("off")
images(axes[4, 0], data.take("train", 10).x0.numpy(), 10, "data")
plt.show()

# %% [markdown]
# These are results of one seed; compare differences with the deviation between seeds. The deterministic samplers are close to
# their limit after about 10 evaluations, and generate the same digits from the same noise. Ancestral sampling improves with
# more evaluations and reaches a lower distance on this network, but not on the default model (`docs/sampling.md`). More than
# about 20 evaluations improve little here; longer training would improve more.
#
# ## From the command line
#
# ```bash
# python evaluate.py checkpoint=last.ckpt spacing=optimal steps=16     # measures the costs and caches them
# python evaluate.py -m checkpoint=last.ckpt estimator=full spacing=even,quadratic,optimal steps=8,16,32
# python sample.py checkpoint=last.ckpt sampler=dpm_solver_pp sampler.steps=20 features=pixels format=none
# ```
