"""The losses of all jobs in one chart: one line per job, the median over its concepts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mace_exp.report.charts import (
    curve_scales,
    finite_points,
    joined,
    points_of,
    thinned,
    with_axes,
)
from mace_exp.report.jobs import Job, label

WIDTH = 540
LABEL = "Loss: attention to the concepts inside their masks, median"


def job_curves(jobs: Sequence[Job], varying: Sequence[str]) -> Markup | None:
    """Return the chart; None if no job has trained."""
    lines = {job.name: thinned(finite_points(job.loss)) for job in jobs if job.loss}
    scales = curve_scales(lines.values(), WIDTH)
    if scales is None:
        return None
    drawn = joined(
        Markup(
            '<g class="job" data-job="{0}" aria-label="{1}"><title>{1}</title>'
            '<polyline class="reach" points="{2}"/><polyline class="line" points="{2}"/></g>'
        ).format(job.name, label(job, varying), points_of(lines[job.name], *scales))
        for job in jobs
        if job.name in lines
    )
    return with_axes(drawn, *scales, label=LABEL, unit="step")
