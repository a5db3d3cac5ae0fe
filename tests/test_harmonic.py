"""Harmonic means: which sides they have, their intervals, and their difference between runs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.harmonic import harmonic_mean, harmonic_means
from mace_exp.evaluation.metrics.text_image import text_scores
from mace_exp.evaluation.paired import concept_differences, differences
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scores import ScoredPictures, Scores

PARTS = {"erased": "abcd", "preserved": "efgh", "unlisted": "ij", "synonyms": "abcd"}
PROMPTS = [
    EvaluationPrompt(part, name, f"{name} {i}", i, name)
    for part, names in PARTS.items()
    for name in names
    for i in range(5)
]


def scores(seed: int = 0, **rates: float) -> Scores:
    """Scores of `PROMPTS` whose subjects are recognised at the given rates, 0.5 where none is."""
    rng, count = np.random.default_rng(seed), len(PROMPTS)
    known = [rates.get(each.part, 0.5) for each in PROMPTS]
    unknown = np.full(count, np.nan)
    return Scores(
        subject=["a"] * count,
        subject_probability=np.full(count, 0.7),
        subject_rank=np.where(rng.random(count) < known, 1.0, 9.0),
        scene=[""] * count,
        expected_scene=[""] * count,
        scene_probability=unknown,
        scene_rank=unknown,
        person=unknown,
        text_image=rng.random(count),
        pixel_change=rng.random(count),
        subject_classes=unknown,
        scene_classes=unknown,
        perceptual=unknown,
    )


def means(after: Scores, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"answers": frozenset({"subject", "text_image"})} | changes
    return harmonic_means(Scored(PROMPTS, (scores(), after), **options))


def rate(after: Scores, part: str) -> float:
    return float(
        np.mean(
            [r == 1 for e, r in zip(PROMPTS, after.subject_rank, strict=True) if e.part == part]
        )
    )


def test_generality_is_a_third_side() -> None:
    after = scores(1, erased=0.2, synonyms=0.3, preserved=0.9)
    found = means(after)
    sides = [1 - rate(after, "erased"), rate(after, "preserved"), 1 - rate(after, "synonyms")]
    assert found["harmonic_mean_generality"] == pytest.approx(3 / sum(1 / s for s in sides))
    assert found["harmonic"]["generality"] == sides[2]
    assert found["harmonic_mean"] == pytest.approx(harmonic_mean(sides[:2]))


def test_means_are_within_their_intervals_and_certain_ones_have_one_too() -> None:
    found = means(scores(1, erased=0.2, synonyms=0.3, preserved=0.9))
    for name, (low, high) in found["harmonic"]["intervals"].items():
        assert low < found[name] < high, name
    perfect = means(scores(erased=0, synonyms=0, preserved=1, unlisted=1))
    for name, (low, high) in perfect["harmonic"]["intervals"].items():
        assert perfect[name] == high == 1 and 0.8 < low < 1, name
    nothing = means(scores(erased=1, preserved=1))["harmonic"]["intervals"]["harmonic_mean"]
    assert nothing[0] == 0 < nothing[1] < 0.4


def test_the_interval_covers_the_mean_of_further_concepts() -> None:
    """Of 40 runs whose concepts have rates of their own, at 95 %: 33 or more."""
    rng, hits, expected = np.random.default_rng(2), 0, []
    for _ in range(40):
        after = scores()
        chance = {each: rng.beta(3, 3) for each in "abcdefgh"}
        ranks = [1.0 if rng.random() < chance.get(e.concept, 0.5) else 9.0 for e in PROMPTS]
        found = means(replace(after, subject_rank=np.array(ranks)))
        low, high = found["harmonic"]["intervals"]["harmonic_mean"]
        expected.append(found["harmonic_mean"])
        hits += low <= 0.5 <= high
    assert hits >= 33 and np.mean(expected) == pytest.approx(0.5, abs=0.06)


def pictures(after: Scores) -> ScoredPictures:
    return ScoredPictures(PROMPTS, scores(), after, "judge")


def test_runs_are_compared_by_their_harmonic_means() -> None:
    worse, better = scores(3, erased=0.5, preserved=0.6), scores(3, erased=0.05, preserved=0.95)
    found = {
        each.measure: each
        for each in differences(pictures(worse), pictures(better))
        if each.part == "overall"
    }
    assert found.keys() == {
        *("harmonic_mean", "harmonic_mean_unlisted", "harmonic_mean_generality"),
    }
    mean = found["harmonic_mean"]
    assert mean.difference == pytest.approx(
        means(better)["harmonic_mean"] - means(worse)["harmonic_mean"]
    )
    assert 0 < mean.low < mean.difference < mean.high and (mean.n, mean.concepts) == (40, 8)
    same = [e for e in differences(pictures(worse), pictures(worse)) if e.part == "overall"]
    assert all(each.low == each.difference == each.high == 0 for each in same)


def test_concepts_add_up_to_their_part() -> None:
    one, two = pictures(scores(4)), pictures(scores(5))
    whole = {(e.part, e.measure): e.difference for e in differences(one, two)}
    single = concept_differences(one, two)
    for part, names in PARTS.items():
        own = [e for e in single if (e.part, e.measure) == (part, "recognised")]
        assert [each.concept for each in own] == list(names)
        assert np.mean([e.difference for e in own]) == pytest.approx(whole[part, "recognised"])
        assert all(each.low <= each.difference <= each.high and each.n == 5 for each in own)


def test_the_score_of_art_is_kept_minus_erased() -> None:
    scored = Scored(PROMPTS, (scores(), scores(6)), answers=frozenset({"text_image"}))
    found = text_scores(scored)
    each = found["text_image_difference"]
    for key in ("value", "original"):
        assert each[key] == pytest.approx(
            found["preserved"]["text_image"][key] - found["erased"]["text_image"][key]
        )
    assert each["low"] < each["value"] < each["high"] and each["kept_part"] == "preserved"
