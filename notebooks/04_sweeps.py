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
# Two schedules, two losses, four runs, and one question: which is better, and where on the chain? The losses are the
# bound itself and Improved DDPM's hybrid, which trains the mean by $L_\text{simple}$; both have a learned variance and draw
# $t$ by importance, so that the loss is all in which they differ. Everything is read
# from the files that the runs leave behind, so it works as well for a sweep that ran elsewhere for days.
#
# | file of a run | content |
# |---|---|
# | `summary.json` | final metrics, and the ledger: what exactly the bound measured |
# | `bound.parquet` | $L_t$ against $t$: per step of training, split and $t$ a sum, a sum of squares and a count |
# | `examples.parquet` | the bound of every test example, by decade of $t$ |
#
# One command is the whole sweep. The runs are tiny, so that all four take about two minutes; what they say of schedules
# and losses is true of tiny runs only. The way to read them is what matters here.

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
from nelbo.reports.comparison.compare import compare
from nelbo.reports.html.bins import binned, from_data, log_bins
from nelbo.reports.html.charts import differences
from nelbo.reports.html.entry import make_entries
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
# `summary.json` is flat: a metric is a key. The ledger says whether two figures may be compared at all; here the runs
# differ in schedule and loss, which are choices of a model, and agree in what was measured.

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
# ## Is a difference real?
#
# The error bars of the totals are mostly those of the data set: some digits are harder than others, for every model.
# The same 180 images were scored by all four, so that part cancels in the differences. `examples.parquet` has a row per
# image; the paired error is what to judge by.

# %%
unit = runs[0].unit
tables = [one.examples() for one in runs]
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
# Judge by the paired column: a difference of two of its errors is worth a second look, and a smaller one is not
# evidence. The paired error says how sure the difference of *these two networks* is. Another seed is another network: add
# `seed=0,1,2` to the sweep before saying which loss is better.
#
# ## Where is it?
#
# By decade of $t$, from the same table. But mind what a decade is: $t = 100$ of a linear and of a cosine schedule are
# different noise levels. Between the two losses of one schedule the t_bins compare; between schedules only $L_0$,
# $\sum L_t$ and the total do.

# %%
entries = make_entries(runs)
axes = panels(2, height=3.1)
for axis, pair in zip(
    axes, (("linear, hybrid", "linear, vlb"), ("cosine, hybrid", "cosine, vlb")), strict=True
):
    chosen = [entries[names.index(name)] for name in pair]
    draw(axis, differences(chosen).views["differences"], legend=False)
    axis.set_title(f"{pair[1]} less {pair[0]}")
    axis.set_xlabel("bits/dim, left is better; bars: one paired error")
plt.show()

# %% [markdown]
# In both schedules the bound as a loss is ahead at the cleanest timesteps, $L_0$ and $t \le 10$, on which it puts its
# weight, and behind from $t = 11$ on, most of all at $t > 100$, which after so few steps decides the total. Longer runs are
# another matter; the table of t_bins shows when the order turns.
#
# ## Curves on a common axis
#
# Against logsnr, chains of different schedules do compare: added up from the data, the curve at a noise level is what
# it costs to send $x_0$ to someone who knows $x_t$ at that level. `bound.parquet` holds sums and counts, so a curve is
# as many rows added together as the reader likes.

# %%
rows = pq.read_table(paths[0] / "bound.parquet")
print(
    rows.schema.to_string(),
    f"\n{rows.num_rows:,} rows; splits: {', '.join(sorted(set(rows['split'].to_pylist())))}",
)

axis = panels(width=6.8, height=3.0)
for path, one, name, colour in zip(paths, runs, names, COLOURS, strict=False):
    terms = one.last_terms("test")
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
# ## The same from the command line
#
# `python -m nelbo compare` prints the differences from the first run, paired where it can, with what to know before
# reading them; `python -m nelbo report` puts all runs on one page.

# %%
print(run("-m nelbo compare", *(str(folder / number) for number in "3210")))

# %% [markdown]
# And the same as values: `compare` of the package is what the command prints.

# %%
others = [number for number in range(4) if number != base]
comparison = compare([runs[number] for number in (base, *others)])
assert not comparison.incomparable
for number, compared in zip(others, comparison.runs[1:], strict=True):
    ours, theirs = paired_difference(total[number], total[base]), compared.differences.parts["total"]
    assert np.allclose((ours.mean, ours.stderr), (theirs.mean, theirs.stderr))
print("the differences of the command are those of the second section")
