"""The Weights & Biases workspace of a project, as code: the bound first, then where its bits lie.

Every panel shows what runs log (``tests/reports/test_workspace.py`` compares the two). Runs are grouped by
schedule and loss.
"""

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

STEP = "trainer/global_step"  # the axis of what runs log
NAME = "nelbo: the bound, term by term"
GROUPED_BY = ("schedule._target_", "loss._target_")  # in the configuration that a run logs
LINE_CHART = "wandb/line/v0"  # W&B's line chart


def bound_workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, not saved yet. Discrete data has ``bpd`` (bits/dim), other data ``nelbo`` (nats)."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(
                name="The bound of held-out data",
                is_open=True,
                panels=[
                    lines("the bound", "val/bpd", "val/nelbo"),
                    lines("L_0: reconstruction", "val/L_0"),
                    lines("L_t: denoising, summed over t", "val/L_t"),
                    lines("L_T: prior", "val/L_T"),
                    lines("standard error of the bound", "val/bpd_stderr", "val/nelbo_stderr"),
                    wr.BarPlot(title="the bound of the test split", metrics=["test/bpd", "test/nelbo"]),
                ],
            ),
            ws.Section(
                name="Where its bits lie",
                is_open=True,
                panels=[
                    against_t("val"),
                    against_t("test"),
                    # a pattern, because the number of bins of t depends on T
                    wr.LinePlot(
                        title="shares by bin of t",
                        x=STEP,
                        metric_regex="^val/share/.*",
                        plot_type="stacked-area",
                    ),
                    lines("share in levels cleaner than half a bin", "val/share_below_half_bin"),
                ],
            ),
            ws.Section(
                name="Samples",
                is_open=True,
                panels=[
                    wr.MediaBrowser(title="samples", media_keys=["samples"], num_columns=2),
                    wr.LinePlot(
                        title="FID, or the Frechet distance of other features",
                        x=STEP,
                        metric_regex="^val/(fid|fd_.*)$",
                    ),
                ],
            ),
            ws.Section(
                name="Training",
                is_open=True,
                panels=[
                    lines("loss", "train/loss"),
                    lines("the bound of the training batches", "train/bpd", "train/nelbo"),
                    lines("images per second", "throughput/images_per_second"),
                ],
            ),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config(key) for key in GROUPED_BY]),
    )


def lines(title: str, *metrics: str) -> wr.LinePlot:
    """Metrics against optimizer steps."""
    return wr.LinePlot(title=title, x=STEP, y=list(metrics))


def against_t(split: str) -> wr.CustomChart:
    """L_t against log10 t of all chosen runs, from the table that ``GuardedWandbLogger.log_bound`` logs."""
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{split}/L_t_against_t_table"}},
        chart_name=LINE_CHART,
        chart_fields={"x": "log10_t", "y": "L_t", "stroke": None},
        chart_strings={"title": f"{split}: L_t against log10 t (t = 1 is L_0)"},
    )


def as_json(workspace: ws.Workspace) -> str:
    """What saving sends, readable."""
    view = workspace._to_model()  # the library has no public way to see it
    return view.model_dump_json(by_alias=True, exclude_none=True, indent=2)
