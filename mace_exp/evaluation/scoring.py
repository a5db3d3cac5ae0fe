"""Scores of pictures from a judge's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.judges.base import PERSON, SCENE, SUBJECT, TEXT_IMAGE
from mace_exp.evaluation.predictions import Predictions
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scores import Scores


def scores_of(
    prompts: Sequence[EvaluationPrompt],
    pictures: np.ndarray,
    originals: np.ndarray,
    predictions: Predictions | None,
    answers: frozenset[str],
    *,
    kinds: Mapping[str, Kind] | None = None,
) -> Scores:
    """Return the scores of `pictures` [n, H, W, 3], uint8; `originals` are the original model's for
    the same prompts and seeds. `answers` are those that the judge gives, none without one. With
    `kinds`, the kind of each class, subjects are classified among those of the expected subject's
    kind."""
    unknown = np.full(len(prompts), np.nan)
    places = predictions.classes[SCENE] if predictions and SCENE in answers else ()
    scenes = [scene_in(each.prompt, places) for each in prompts]
    subject, scene = (
        _of_head(predictions if head in answers else None, head, expected, kinds=own)
        for head, expected, own in (
            (SUBJECT, [each.expected for each in prompts], kinds or {}),
            (SCENE, scenes, {}),
        )
    )
    return Scores(
        subject=subject[0],
        subject_probability=subject[1],
        subject_rank=subject[2],
        scene=scene[0],
        expected_scene=scenes,
        scene_probability=scene[1],
        scene_rank=scene[2],
        person=predictions.persons if predictions and PERSON in answers else unknown,
        text_image=predictions.scores if predictions and TEXT_IMAGE in answers else unknown,
        pixel_change=pixel_changes(originals, pictures),
        subject_classes=subject[3],
        scene_classes=scene[3],
        perceptual=unknown,
    )


def _of_head(
    predictions: Predictions | None,
    head: str,
    expected: Sequence[str],
    *,
    kinds: Mapping[str, Kind],
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return the top-1 predictions, probability and rank of the expected class, and the number of
    classes that the rank is among, [n] each; "" and NaN without predictions, NaN for classes
    unknown to the judge."""
    probability, rank, among = np.full((3, len(expected)), np.nan)
    if predictions is None:
        return [""] * len(expected), probability, rank, among
    found = predictions.probabilities[head]
    names = predictions.classes[head]  # after `probabilities`: a command may have added classes
    classes = class_rows(names, expected)
    known = np.flatnonzero(classes >= 0)
    among[known] = len(names)
    if kinds:
        of_classes = [kinds.get(name) for name in names]
        found = among_kinds(found, of_classes, classes)
        among[known] = [of_classes.count(of_classes[row]) for row in classes[known]]
    probability[known] = found[known, classes[known]]
    rank[known] = ranks(found[known], classes[known])
    return [names[row] for row in found.argmax(axis=1)], probability, rank, among


def class_rows(classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return each name's class index, [n]; -1 if the judge does not know it. Names are compared by
    `name_key`."""
    known = {name_key(name): row for row, name in enumerate(classes)}
    return np.array([known.get(name_key(name), -1) for name in names], dtype=np.int64)


def among_kinds(
    probabilities: np.ndarray, kinds: Sequence[Kind | None], rows: np.ndarray
) -> np.ndarray:
    """Return probabilities [n, c] renormalised over the classes of the same kind as class
    `rows[i]`, zero for all others; unchanged where `rows[i]` is -1. For a softmax this equals the
    softmax over those classes."""
    own = np.array([[kind is other for other in kinds] for kind in kinds])
    rivals = np.where(rows[:, None] >= 0, own[rows], True)
    kept = np.where(rivals, probabilities, 0.0)
    return kept / np.maximum(kept.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def ranks(probabilities: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rank [n] of class `rows[i]` by probability [n, c], 1 for the most probable.

    Tied classes get the worst of their ranks, so that a uniform prediction recognises nothing.
    """
    own = probabilities[np.arange(len(rows)), rows][:, None]
    return (probabilities >= own).sum(axis=1)


def scene_in(prompt: str, scenes: Iterable[str]) -> str:
    """Return the scene that a prompt ends with, or "". The longest one if several match."""
    found = (scene for scene in scenes if prompt.casefold().endswith(f" {scene.casefold()}"))
    return max(found, key=len, default="")


def pixel_changes(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean absolute difference of each pair, [n], in [0, 1], of images with the same
    prompts and seeds.

    Images [H, W, 3], uint8, of one size. They are read one by one: thousands of large ones would
    not fit into memory as floats.

    Raises:
        ValueError: the numbers of images differ.
    """
    pairs = zip(first, second, strict=True)
    return np.array([np.abs(a.astype(np.int16) - b).mean() / 255 for a, b in pairs])
