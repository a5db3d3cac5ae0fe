"""All measurements of an edit: pictures before and after in, the content of metrics.json out.

    {"erased": {"accuracy": {value, low, high, n, original}, "top5": {...}, "text_image": {...},
                "pixel_change": x, "concepts": {slug: {name, value, low, high, n, original}}},
     "preserved": ..., "objects": ..., "styles": ..., "scenes": {"accuracy", "concepts"},
     "general": {"text_image", "pixel_change"},
     "harmonic_mean": x, "harmonic": {...}, "distances": {...}, "missing": [sentence, ...]}

`accuracy` is how often the judge names the expected class (for `erased`: lower is better);
`original` is the same measure on the model before the edit, same prompts and seeds. What could not
be measured is absent, and `missing` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mace_exp.concepts.concept import slugify
from mace_exp.evaluation.judges.base import SCENE, SUBJECT, Judge
from mace_exp.evaluation.metrics.accuracy import class_rows, hits_among_top, rate
from mace_exp.evaluation.metrics.distances import (
    frechet_distance,
    kernel_distance,
    pixel_change,
    pixel_features,
)
from mace_exp.evaluation.metrics.harmonic import harmonic_mean, overall
from mace_exp.evaluation.suite import (
    ERASED,
    GENERAL,
    OBJECTS,
    PARTS,
    PRESERVED,
    STYLES,
    EvaluationPrompt,
)
from mace_exp.evaluation.verdicts import Verdict

SCENES = "scenes"
KEPT = (PRESERVED, OBJECTS, STYLES, SCENES)
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as above; what the judge saw in each picture, "" without one."""

    metrics: Metrics
    before: list[str]
    after: list[str]


def evaluate(
    prompts: Sequence[EvaluationPrompt],
    before: np.ndarray,
    after: np.ndarray,
    *,
    judge: Judge | None,
    specificity: str = PRESERVED,
) -> Evaluation:
    """Measure pictures [n, H, W, 3], uint8, drawn for `prompts` before and after an edit.

    `specificity` is the part whose accuracy enters the harmonic mean (`suite.SPECIFICITY` gives it
    by kind); where it was not drawn, the first other part that was.

    Raises:
        ValueError: no prompts, or another number of pictures.
    """
    if not prompts or len(before) != len(prompts) or len(after) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(before)} and {len(after)} pictures")
    metrics: Metrics = {part: _pixels(prompts, part, before, after) for part in _parts(prompts)}
    missing: list[str] = []
    if judge is None:
        missing.append("no judge for this model: accuracy and text scores are not measured")
        metrics["distances"] = _distances(
            prompts, pixel_features(before), pixel_features(after), space="pixels"
        )
        return Evaluation(metrics | {"missing": missing}, [""] * len(prompts), [""] * len(prompts))
    texts = [prompt.prompt for prompt in prompts]
    pair = Verdict(judge, before, texts), Verdict(judge, after, texts)
    _add_subjects(metrics, prompts, pair, judge.classes[SUBJECT], missing)
    _add_scenes(metrics, prompts, pair, judge.classes[SCENE])
    _add_harmonic(metrics, specificity, missing)
    metrics["distances"] = _distances(prompts, pair[0].features, pair[1].features, space="judge")
    named = [_named(prompts, verdict, judge.classes) for verdict in pair]
    return Evaluation(metrics | {"missing": missing}, named[0], named[1])


def scene_in(prompt: str, scenes: Iterable[str]) -> str:
    """Return the scene that a prompt ends with, or ""."""
    found = (scene for scene in scenes if prompt.casefold().endswith(f" {scene.casefold()}"))
    return max(found, key=len, default="")


def _parts(prompts: Sequence[EvaluationPrompt]) -> list[str]:
    drawn = {prompt.part for prompt in prompts}
    return [part for part in PARTS if part in drawn]


def _rows_of(prompts: Sequence[EvaluationPrompt], part: str) -> np.ndarray:
    return np.flatnonzero([prompt.part == part for prompt in prompts])


def _pixels(
    prompts: Sequence[EvaluationPrompt], part: str, before: np.ndarray, after: np.ndarray
) -> Metrics:
    rows = _rows_of(prompts, part)
    # Lists of views: an index would copy the part.
    change = pixel_change([before[row] for row in rows], [after[row] for row in rows])
    return {"pixel_change": change}


def _add_subjects(
    metrics: Metrics,
    prompts: Sequence[EvaluationPrompt],
    pair: tuple[Verdict, Verdict],
    classes: Sequence[str],
    missing: list[str],
) -> None:
    """Add accuracy, top five, text score and concepts to every part."""
    known = class_rows(classes, [prompt.expected for prompt in prompts])
    for part in _parts(prompts):
        rows = _rows_of(prompts, part)
        metrics[part] |= _text_score(pair[1].scores[rows], pair[0].scores[rows])
        if part == GENERAL:
            continue
        unknown = {prompts[row].expected for row in rows if known[row] < 0}
        missing += [f"the judge does not know {name!r} ({part})" for name in sorted(unknown)]
        rows = rows[known[rows] >= 0]
        if len(rows):
            names = [prompts[row].concept for row in rows]
            metrics[part] |= _accuracies(SUBJECT, pair, rows, known[rows], names)


def _text_score(after: np.ndarray, before: np.ndarray) -> Metrics:
    """Return the mean over the prompts that the judge can score; nothing where it can none."""
    scored = np.isfinite(after) & np.isfinite(before)
    if not scored.any():
        return {}
    values = {"value": float(after[scored].mean()), "original": float(before[scored].mean())}
    return {"text_image": values}


def _add_scenes(
    metrics: Metrics,
    prompts: Sequence[EvaluationPrompt],
    pair: tuple[Verdict, Verdict],
    classes: Sequence[str],
) -> None:
    """Add the part that is read from the pictures of all others: the scenes that prompts name."""
    scenes = [scene_in(prompt.prompt, classes) for prompt in prompts]
    rows = np.flatnonzero([bool(scene) for scene in scenes])
    if len(rows):
        names = [scenes[row] for row in rows]
        metrics[SCENES] = _accuracies(SCENE, pair, rows, class_rows(classes, names), names)


def _accuracies(
    head: str,
    pair: tuple[Verdict, Verdict],
    rows: np.ndarray,
    expected: np.ndarray,
    names: Sequence[str],
) -> Metrics:
    """Return accuracy, top5 and concepts of the pictures `rows`, whose class is `expected`."""
    result: Metrics = {}
    for key, top in (("accuracy", 1), ("top5", 5)):
        hits = [hits_among_top(each.probabilities[head][rows], expected, top) for each in pair]
        result[key] = _compared(*hits)
        if top == 1:
            result["concepts"] = _per_concept(names, *hits)
    return result


def _per_concept(names: Sequence[str], before: np.ndarray, after: np.ndarray) -> Metrics:
    array = np.array(names)
    return {
        slugify(name): {"name": name, **_compared(before[array == name], after[array == name])}
        for name in dict.fromkeys(names)
    }


def _compared(before: np.ndarray, after: np.ndarray) -> Metrics:
    """Return the rate after the edit with its interval, and the rate before."""
    found = rate(after)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "original": float(np.mean(before)),
    }


def _add_harmonic(metrics: Metrics, specificity: str, missing: list[str]) -> None:
    """Add the paper's overall score, and one over everything that was measured."""
    measured = {
        part: metrics[part]["accuracy"]["value"]
        for part in (ERASED, *KEPT)
        if "accuracy" in metrics.get(part, {})
    }
    kept = [part for part in (specificity, *KEPT) if part in measured]
    if ERASED not in measured or not kept:
        missing.append("no harmonic mean: it needs an erased and a kept part that the judge knows")
        return
    metrics["harmonic_mean"] = overall(measured[ERASED], measured[kept[0]])
    efficacy = 1 - measured[ERASED]
    metrics["harmonic"] = {
        "efficacy": efficacy,
        "specificity": measured[kept[0]],
        "specificity_part": kept[0],
        "all_parts": harmonic_mean([efficacy, *(measured[part] for part in dict.fromkeys(kept))]),
    }


def _distances(
    prompts: Sequence[EvaluationPrompt], before: np.ndarray, after: np.ndarray, *, space: str
) -> Metrics:
    """Return distances between pictures of all that should not change, and of what should."""
    erased = np.array([prompt.part == ERASED for prompt in prompts])
    result: Metrics = {"features": space}
    for key, chosen in (("kept", ~erased), ("erased", erased)):
        if chosen.sum() >= 2:
            pair = before[chosen], after[chosen]
            result[key] = {
                "frechet": frechet_distance(*pair),
                "kernel": kernel_distance(*pair),
                "n": int(chosen.sum()),
            }
    return result


def _named(
    prompts: Sequence[EvaluationPrompt],
    verdict: Verdict,
    classes: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the likeliest subject of each picture; of general ones the likeliest scene."""
    heads = [SCENE if prompt.part == GENERAL else SUBJECT for prompt in prompts]
    return [
        classes[head][int(verdict.probabilities[head][row].argmax())]
        for row, head in enumerate(heads)
    ]
