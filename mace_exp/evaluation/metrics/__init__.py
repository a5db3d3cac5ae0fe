"""The metrics that a run can choose from, by the names of `evaluation.metrics`."""

from collections.abc import Sequence

from mace_exp.evaluation.metrics.accuracy import ACCURACY
from mace_exp.evaluation.metrics.base import Metric
from mace_exp.evaluation.metrics.distances import DISTANCES
from mace_exp.evaluation.metrics.harmonic import HARMONIC
from mace_exp.evaluation.metrics.pixel_change import PIXEL_CHANGE
from mace_exp.evaluation.metrics.scenes import SCENE_ACCURACY
from mace_exp.evaluation.metrics.text_image import TEXT_SCORE

METRICS: dict[str, Metric] = {
    "pixel_change": PIXEL_CHANGE,
    "text_image": TEXT_SCORE,
    "accuracy": ACCURACY,
    "scenes": SCENE_ACCURACY,
    "harmonic": HARMONIC,
    "distances": DISTANCES,
}
"""Each metric by its name; one that is added before conf/ is composed can be chosen like these."""


def check_metrics(names: Sequence[str]) -> None:
    """Raise ValueError unless `names` are registered metrics, at least one, and each once."""
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names or len(set(names)) < len(names):
        fault = f"names {unknown[0]}, which is no metric" if unknown else "is not a choice"
        raise ValueError(
            f"evaluation.metrics = [{', '.join(names)}] {fault}: name at least one, and each once, "
            f"of {', '.join(METRICS)}"
        )
