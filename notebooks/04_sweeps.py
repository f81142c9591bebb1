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
# # Sweeps
#
# This notebook compares two schedules and two losses in four runs, in total and by timestep. The losses are the bound and the
# hybrid loss of Improved DDPM, which trains the mean with $L_\text{simple}$. Both have a learned variance and
# importance-sampled timesteps, so only the loss differs. All results are read from the files of the runs, so the notebook also
# works for a sweep that ran on another machine.
#
# | file of a run | content |
# |---|---|
# | `summary.json` | final metrics, and the ledger: what exactly the bound measured |
# | `bound.parquet` | $L_t$ against $t$: sum, sum of squares and count for every training step, split and $t$ |
# | `examples.parquet` | the bound of every test example, by decade of $t$ |
#
# One command runs the sweep. The runs are short, so that all four take about a minute. Their results on schedules and losses
# do not extend to longer runs; the notebook shows how to read them.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import torch
from commands import run, scratch
from pictures import COLOURS, INK, draw, panels, trials

import nelbo  # noqa: F401
from nelbo.compose.trained import load_model
from nelbo.evaluation.paired import paired_difference
from nelbo.reports.comparison.compare import compare, differences_from_first
from nelbo.reports.html.charts import differences
from nelbo.reports.html.entry import make_entries
from nelbo.runs.bins import binned, from_data, log_bins
from nelbo.runs.run_folder import read_run

folder = scratch()
options = "logger=none model.channels=16 trainer.max_steps=100 trainer.val_check_interval=100 callbacks.samples=null"
run(
    "train.py",
    "-m",
    "schedule=linear,cosine",
    "objective=hybrid,vlb",
    "variance=learned_range",
    "timesteps=importance",
    *options.split(),
    f"hydra.sweep.dir={folder}",
)

paths = sorted(path.parent for path in folder.glob("*/summary.json"))
runs = [read_run(path) for path in paths]
names = [
    f"{one.ledger['schedule'].removesuffix('Schedule').lower()}, {one.config['loss']['_target_'].rpartition('.')[2].lower()}"
    for one in runs
]
assert names == ["linear, hybrid", "linear, vlb", "cosine, hybrid", "cosine, vlb"]
print(
    *(
        f"{path.name}: {name}, {one.summary['train_seconds']:.0f} s"
        for path, name, one in zip(paths, names, runs, strict=True)
    ),
    sep="\n",
)

# %% [markdown]
# ## The totals
#
# `summary.json` is flat: every metric is a key. The ledger shows whether two values can be compared. These runs differ in
# schedule and loss, which are choices of a model, and measure the same quantity.

# %%
summaries = [json.loads((path / "summary.json").read_text()) for path in paths]
for key in ("data", "split", "num_examples", "levels", "decoder", "clip"):
    assert len({str(summary["ledger"][key]) for summary in summaries}) == 1
parts = [{part: summary[f"test/{part}"] for part in ("L_0", "L_t", "L_T")} for summary in summaries]

axis = panels(width=7.0, height=2.3)
trials(axis, names, parts, "test bound, bits/dim")
plt.show()
for name, summary in zip(names, summaries, strict=True):
    print(
        f"{name:16} {summary['test/bpd']:.3f} ± {summary['test/bpd_stderr']:.3f}   variance {summary['ledger']['variance']}"
    )

# %% [markdown]
# ## Paired differences
#
# The errors of the totals are mostly data set errors: some digits are harder than others for every model. All four runs
# measured the same 180 images, so this part cancels in the differences. `examples.parquet` has one row per image. Use the
# paired error to judge a difference.

# %%
unit = runs[0].unit
tables = [one.examples for one in runs]
total = [table.part("total") * unit.per_nat for table in tables]
base = names.index("cosine, vlb")

print(f"{'less ' + names[base]:22}{'difference':>12}{'paired error':>15}{'unpaired error':>16}")
for name, values in zip(names, total, strict=True):
    if name != names[base]:
        d = paired_difference(values, total[base])
        unpaired = np.hypot(values.std().item(), total[base].std().item()) / len(values) ** 0.5
        print(f"{name:22}{d.mean:+12.4f}{d.stderr:15.4f}{unpaired:16.4f}")

axes = panels(2, height=2.8)
for axis, other in zip(axes, ("cosine, hybrid", "linear, vlb"), strict=True):
    values = total[names.index(other)]
    axis.plot(total[base], values, "o", ms=2.5, alpha=0.7, color=COLOURS[0])
    low, high = total[base].min().item(), max(values.max().item(), total[base].max().item())
    axis.plot([low, high], [low, high], color=INK, lw=1)
    r = np.corrcoef(total[base], values)[0, 1]
    axis.set(
        xlabel=f"{names[base]}, bits/dim",
        ylabel=f"{other}, bits/dim",
        title=f"one dot is one image, correlation {r:.2f}",
    )
plt.show()

# %% [markdown]
# A difference of less than two paired errors is not evidence. The paired error is the error of the difference between *these
# two networks*. Another seed gives another network: add `seed=0,1,2` to the sweep before concluding which loss is better.
#
# ## Differences by timestep
#
# The same table gives the differences by decade of $t$. At the same $t$, a linear and a cosine schedule have different noise
# levels. The decades can therefore be compared between losses of one schedule; between schedules, compare only $L_0$,
# $\sum L_t$ and the total.

# %%
entries = make_entries(runs)
axes = panels(2, height=3.1)
for axis, pair in zip(
    axes, (("linear, hybrid", "linear, vlb"), ("cosine, hybrid", "cosine, vlb")), strict=True
):
    chosen = [entries[names.index(name)] for name in pair]
    draw(axis, differences(chosen, differences_from_first(chosen)).views["differences"], legend=False)
    axis.set_title(f"{pair[1]} less {pair[0]}")
    axis.set_xlabel("bits/dim, left is better; bars: one paired error")
plt.show()

# %% [markdown]
# With both schedules, the loss `vlb` is better at the cleanest timesteps, $L_0$ and $t \le 10$, to which it gives most weight, and
# worse from $t = 11$ on. The difference is largest at $t > 100$, which dominates the total after so few steps. In longer runs
# the order can change; the differences by decade show when.
#
# ## Curves on a common axis
#
# Against logsnr, chains of different schedules can be compared. Summed from the data, the curve at a noise level is the cost of
# $x_0$ given $x_t$ at that level. `bound.parquet` contains sums and counts, so rows can be combined into bins of any size.

# %%
rows = pq.read_table(paths[0] / "bound.parquet")
print(
    rows.schema.to_string(),
    f"\n{rows.num_rows:,} rows; splits: {', '.join(sorted(set(rows['split'].to_pylist())))}",
)

axis = panels(width=6.8, height=3.0)
for path, one, name, colour in zip(paths, runs, names, COLOURS, strict=False):
    terms = one.last_step_table("test")
    curve = from_data(binned(terms, log_bins([terms])))
    value, error = curve.value * unit.per_nat, curve.error * unit.per_nat
    schedule = load_model(path / "checkpoints/last.ckpt").module.bound.chain.schedule
    logsnr = schedule.level(torch.tensor(curve.t)).logsnr
    kind = {"linear": "--", "cosine": "-"}[name.partition(",")[0]]
    axis.fill_between(logsnr, value - error, value + error, color=colour, alpha=0.18, lw=0)
    axis.plot(logsnr, value, kind, color=colour, label=name)
axis.set(xlabel="logsnr, from data to noise", ylabel="bits/dim, from data to here", xlim=(6, -11))
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## From the command line
#
# `python -m nelbo compare` prints the differences from the first run, paired if possible, and notes on their interpretation.
# `python -m nelbo report` writes all runs to one page.

# %%
print(run("-m nelbo compare", *(str(folder / number) for number in "3210")))

# %% [markdown]
# The function `compare` of the package returns the values that the command prints.

# %%
others = [number for number in range(4) if number != base]
comparison = compare([runs[number] for number in (base, *others)])
assert not comparison.incomparable
for number, compared in zip(others, comparison.runs[1:], strict=True):
    ours, theirs = paired_difference(total[number], total[base]), compared.differences.parts["total"]
    assert np.allclose((ours.mean, ours.stderr), (theirs.mean, theirs.stderr))
print("the differences of the command are those of the second section")
