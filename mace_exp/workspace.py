"""`python -m mace_exp.workspace --project P --entity E`: a saved view of a project's runs.

By default Weights & Biases shows a panel for everything that is logged. This view shows the panels
that help to choose a setting: erasure against preservation, the settings behind it, and the images.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
from typing import TYPE_CHECKING

from mace_exp.cli.common import run_command
from mace_exp.runs.tracking import has_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

log = logging.getLogger("mace_exp.workspace")

NAME = "What was erased, and what was kept"
ERASED, PRESERVED = "erased/accuracy/value", "preserved/accuracy/value"
MEASURES = (
    *(ERASED, PRESERVED, "unlisted/accuracy/value", "neighbours/accuracy/value"),
    *("objects/accuracy/value", "styles/accuracy/value"),
    *("harmonic_mean", "harmonic_mean_unlisted"),
)
"""Names in the tracker's summary, as the metrics stage writes them."""
SETTINGS = (
    "preservation.prior_weight",
    "preservation.domain_weight",
    "cfr.closeness",
    "fusion.closeness",
    "lora.rank",
    "lora.learning_rate",
    "seed",
)
LOGARITHMIC = SETTINGS[:4] + SETTINGS[5:6]
"""Settings shown on a logarithmic axis."""
MEDIA = ("samples", "attention", "masks")
CURVES = {
    "loss": "attention to the concepts",
    "attention": "share of the attention that their words get",
    "grad_norm": "norm of the gradients",
}


def main(arguments: list[str] | None = None) -> int:
    """Create the view in a project and return the exit code: 2 for an error."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.workspace", description=__doc__)
    parser.add_argument("--project", default="mace_exp", help="default: %(default)s")
    parser.add_argument(
        "--entity", default=os.environ.get("WANDB_ENTITY"), help="user or team ($WANDB_ENTITY)"
    )
    parser.add_argument("--name", default=NAME, help="name of the view (default: %(default)r)")
    chosen = parser.parse_args(arguments)
    return run_command("mace_exp.workspace", lambda: create(chosen))


def create(chosen: argparse.Namespace) -> None:
    """Save the view, and log its address.

    Raises:
        ValueError: wandb-workspaces is not installed, entity or API key is missing, or the service
            rejects the view.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ValueError("wandb-workspaces is missing: pip install 'mace-exp[workspace]'")
    if not chosen.entity:
        raise ValueError("--entity is not set: name the user or team that owns the project")
    if not has_key():
        raise ValueError(
            "WANDB_API_KEY is not set, and there is no key from `wandb login`: the view is saved "
            "at the service, which needs one"
        )
    view = workspace(chosen.project, chosen.entity, chosen.name)
    try:
        view.save()
    except Exception as error:  # the client's errors share no base class
        raise ValueError(f"the service rejected the view: {error}") from error
    log.info("saved %s", view.url)


def workspace(project: str, entity: str, name: str = NAME) -> Workspace:
    """Return the view, without contacting the service.

    Parallel coordinates are inverted where lower is better, so that up is better on all axes;
    curves are medians over each run's concepts, readable also with a hundred concepts.
    """
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws

    pareto = wr.ScatterPlot(
        title="Erased (less is better) against preserved (more is better)",
        x=wr.SummaryMetric(ERASED),
        y=wr.SummaryMetric(PRESERVED),
        z=wr.SummaryMetric("harmonic_mean"),
        layout=wr.Layout(x=0, y=0, w=10, h=10),
    )
    axis = wr.ParallelCoordinatesPlotColumn
    settings = [axis(wr.Config(k), display_name=k, log=k in LOGARITHMIC) for k in SETTINGS]
    measures = [
        axis(wr.SummaryMetric(k), display_name=_title(k), inverted=k == ERASED) for k in MEASURES
    ]
    parallel = wr.ParallelCoordinatesPlot(
        title="Settings and what they lead to",
        columns=[*settings, *measures],
        layout=wr.Layout(x=10, y=0, w=14, h=10),
    )
    pictures = [wr.MediaBrowser(title=key, media_keys=[key], num_columns=4) for key in MEDIA]
    curves = [
        wr.LinePlot(title=f"LoRA: {title}", x="lora/step", y=[f"lora/{key}/median"])
        for key, title in CURVES.items()
    ]
    comparer = wr.RunComparer(diff_only="split", layout=wr.Layout(w=24, h=12))
    sections = [
        ws.Section(name="Trade-off", is_open=True, panels=[pareto, parallel]),
        ws.Section(name="Pictures, before and after", is_open=True, panels=[*pictures]),
        ws.Section(name="Training", panels=[*curves]),
        ws.Section(name="What differs between runs", panels=[comparer]),
    ]
    best_first = [ws.Ordering(ws.Summary("harmonic_mean"), ascending=False)]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=50),
        runset_settings=ws.RunsetSettings(order=best_first),
    )


def _title(measure: str) -> str:
    return measure.split("/")[0].replace("_", " ")


if __name__ == "__main__":
    raise SystemExit(main())
