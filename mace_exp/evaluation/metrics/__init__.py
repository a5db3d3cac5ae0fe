"""The metrics that a run can choose from, by the names of `evaluation.metrics`.

A metric is imported when it is used: the command line checks names without importing numpy.
"""

from collections.abc import Sequence
from importlib import import_module

from mace_exp.evaluation.metrics.base import Metric

METRICS: dict[str, Metric | str] = {
    name: f"{__name__}.{name}"
    for name in (
        *("pixel_change", "text_image", "accuracy", "scenes", "persons", "harmonic"),
        *("distances", "part_distances"),
    )
}
METRICS |= {name: f"{__name__}.compared_sets:{name.upper()}" for name in ("fid", "kid", "cmmd")}
METRICS["perceptual"] = f"{__name__}.perceptual"
"""Each metric by name: a `Metric`, or its module, with its name there if that is not `METRIC`.
Entries added before conf/ is composed can be selected, too."""

JUDGE_METRICS: dict[str, Metric | str] = {
    name: f"{__name__}.{name}" for name in ("detections", "faces")
}
"""Metrics that come with a judge (`JudgeConfig.metrics`) and can't be selected."""

COMPARING = frozenset({"fid", "kid", "cmmd", "perceptual"})
"""Metrics that read `evaluation.distances`."""


def check_metrics(names: Sequence[str]) -> None:
    """Raise ValueError unless `names` are registered metrics, at least one, and each once."""
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names or len(set(names)) < len(names):
        fault = f"names {unknown[0]}, which is no metric" if unknown else "is not a choice"
        raise ValueError(
            f"evaluation.metrics = [{', '.join(names)}] {fault}: name at least one, and each once, "
            f"of {', '.join(METRICS)}"
        )


def load_metric(name: str) -> Metric:
    """Return a registered metric; imports its module."""
    found = METRICS.get(name) or JUDGE_METRICS[name]
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    return getattr(import_module(module), attribute or "METRIC")
