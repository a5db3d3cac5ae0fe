"""`scenes`: how often the judge sees the scene that a prompt names, whatever its subject."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mace_exp.evaluation.judges.base import SCENE
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.rates import class_rows, recognition

SCENES = "scenes"
"""The part of metrics.json that is read off the pictures of all parts."""


def scene_accuracies(measured: Measured) -> Metrics:
    """Return the accuracy on scenes, overall and per scene; nothing where no prompt names one."""
    classes = measured.verdicts[0].judge.classes[SCENE]
    scenes = [scene_in(prompt.prompt, classes) for prompt in measured.prompts]
    rows = np.flatnonzero([bool(scene) for scene in scenes])
    if not len(rows):
        return {}
    names = [scenes[row] for row in rows]
    expected = class_rows(classes, names)
    return {SCENES: recognition(SCENE, measured.verdicts, rows, expected=expected, names=names)}


def scene_in(prompt: str, scenes: Iterable[str]) -> str:
    """Return the scene that a prompt ends with, or "". The longest one where several fit."""
    found = (scene for scene in scenes if prompt.casefold().endswith(f" {scene.casefold()}"))
    return max(found, key=len, default="")


METRIC = Metric(label="accuracy", measure=scene_accuracies, needs=frozenset({SCENE}))
