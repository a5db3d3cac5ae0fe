"""What is measured of pictures: accuracy, harmonic mean, pixels, and the whole of metrics.json."""

import json
import tracemalloc

import numpy as np
import pytest

from mace_exp.evaluation.metrics.harmonic import harmonic_mean, overall
from mace_exp.evaluation.metrics.intervals import wilson_interval
from mace_exp.evaluation.metrics.rates import rate
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scoring import class_rows, pixel_changes, ranks, scene_in
from mace_exp.evaluation.spaces import _cells, pixel_features
from tests.random_evaluation import RandomJudge, evaluate, random_pictures, random_suite

CLASSES = {
    "subject": ("Adam", "Eve", "Noah", "cat", "dog", "pixel art", "nobody"),
    "scene": ("in the park", "at night"),
}


class PaintedJudge:
    """Reads the classes that a test painted into the first two pixels of a picture."""

    classes = CLASSES

    def probabilities(self, images):
        rows = {head: images[:, 0, column, 0] for column, head in enumerate(CLASSES)}
        return {head: np.eye(len(CLASSES[head]), dtype=np.float32)[rows[head]] for head in CLASSES}

    def features(self, images):
        return images.reshape(len(images), -1)[:, :6].astype(np.float32)

    def persons(self, images):
        return np.isin(images[:, 0, 0, 0], [0, 1, 2, 6]).astype(np.float32)

    def text_image_score(self, images, prompts):
        return np.linspace(0, 1, len(prompts)) * (images[:, 0, 0, 0] > 0)


def paint(subjects, scenes):
    images = np.full((len(subjects), 16, 16, 3), 128, np.uint8)
    images[:, 0, 0] = np.array([[CLASSES["subject"].index(name)] * 3 for name in subjects])
    images[:, 0, 1] = np.array([[CLASSES["scene"].index(name)] * 3 for name in scenes])
    return images


PROMPTS = [
    EvaluationPrompt("erased", "Adam", "a photo of adam in the park", 1, "Adam"),
    EvaluationPrompt("erased", "Adam", "adam", 2, "Adam"),
    EvaluationPrompt("preserved", "Eve", "eve at night", 3, "Eve"),
    EvaluationPrompt("preserved", "Noah", "noah", 4, "Noah"),
    EvaluationPrompt("objects", "cat", "a cat at night", 5, "cat"),
    EvaluationPrompt("general", "", "the background at night", 6, ""),
]
PARK, NIGHT = CLASSES["scene"]
BEFORE = paint(
    ["Adam", "Adam", "Eve", "Noah", "cat", "nobody"], [PARK, PARK, NIGHT, PARK, NIGHT, NIGHT]
)
AFTER = paint(
    ["nobody", "Adam", "Eve", "dog", "cat", "nobody"], [PARK, PARK, PARK, PARK, NIGHT, NIGHT]
)


def test_metrics_count_what_was_painted():
    result = evaluate(PROMPTS, BEFORE, AFTER, judge=PaintedJudge())
    metrics = result.metrics
    assert {part: metrics[part]["accuracy"]["value"] for part in ("erased", "preserved")} == {
        "erased": 0.5,
        "preserved": 0.5,
    }
    assert metrics["erased"]["accuracy"]["original"] == 1.0
    assert metrics["erased"]["accuracy"]["n"] == 2
    assert metrics["objects"]["accuracy"]["value"] == 1.0
    assert metrics["scenes"]["accuracy"]["value"] == 0.75  # four prompts name a scene
    assert metrics["scenes"]["accuracy"]["n"] == 4
    assert metrics["scenes"]["concepts"]["at-night"]["value"] == pytest.approx(2 / 3)
    assert metrics["preserved"]["concepts"]["noah"]["name"] == "Noah"
    assert metrics["preserved"]["concepts"]["noah"]["value"] == 0.0
    assert metrics["preserved"]["concepts"]["noah"]["original"] == 1.0
    assert metrics["harmonic_mean"] == pytest.approx(0.5)
    assert metrics["harmonic"]["specificity_part"] == "preserved"
    assert "accuracy" not in metrics["general"] and "text_image" in metrics["general"]
    assert metrics["distances"]["features"] == "judge"
    assert metrics["missing"] == [
        f"the part {part} has one picture: a distance between sets needs two"
        for part in ("objects", "general")
    ]
    assert result.after == ["nobody", "Adam", "Eve", "dog", "cat", "at night"]
    json.dumps(metrics, allow_nan=False)


def test_an_edit_that_changes_nothing_measures_nothing():
    metrics = evaluate(PROMPTS, BEFORE, BEFORE, judge=PaintedJudge()).metrics
    for part in ("erased", "preserved", "objects", "scenes"):
        assert metrics[part]["accuracy"]["value"] == metrics[part]["accuracy"]["original"]
    assert metrics["general"]["pixel_change"] == 0
    assert metrics["distances"]["kept"]["frechet"] == pytest.approx(0, abs=1e-9)
    assert metrics["harmonic_mean"] == 0.0


def test_without_a_judge_the_rest_is_measured_and_the_gap_named():
    result = evaluate(PROMPTS, BEFORE, AFTER, judge=None)
    assert "no judge" in result.metrics["missing"][0]
    assert "accuracy" not in result.metrics["erased"] and "harmonic_mean" not in result.metrics
    assert result.metrics["distances"]["features"] == "pixels"
    assert result.metrics["distances"]["kept"]["n"] == 4
    assert result.metrics["erased"]["pixel_change"] > 0
    assert result.before == [""] * 6
    json.dumps(result.metrics, allow_nan=False)


def test_a_name_that_the_judge_does_not_know_is_left_out_and_named():
    stranger = EvaluationPrompt("erased", "My Dog", "my dog", 1, "My Dog")
    prompts = [stranger, *PROMPTS[1:]]
    metrics = evaluate(prompts, BEFORE, AFTER, judge=PaintedJudge()).metrics
    assert metrics["erased"]["accuracy"]["n"] == 1
    assert metrics["missing"][0] == "the judge does not know 'My Dog' (erased)"
    assert not any("know" in line for line in metrics["missing"][1:])
    only = evaluate([stranger, PROMPTS[2]], BEFORE[:2], AFTER[:2], judge=PaintedJudge()).metrics
    assert "accuracy" not in only["erased"] and "harmonic_mean" not in only
    assert any("no harmonic mean" in line for line in only["missing"])


class ForgetfulJudge(PaintedJudge):
    """Scores 0.25 times the prompt's place, and no prompt that names a stranger."""

    def text_image_score(self, images, prompts):
        known = np.array(["my dog" not in prompt for prompt in prompts])
        return np.where(known, 0.25 * np.arange(len(prompts)), np.nan)


def test_top_5_of_five_classes_is_no_measure():
    """Every rank among five is at most five, whatever a picture shows."""

    class Few(RandomJudge):
        classes = {"subject": ("Person A", "Person D", "cat", "dog", "comic")}

        def probabilities(self, images):
            return {"subject": self._drawn(images, 5)}

    supports = frozenset({"subject"})
    found, many = (
        evaluate(random_suite(), *random_pictures(), judge=judge, supports=supports).metrics
        for judge in (Few(), RandomJudge())
    )
    assert "accuracy" in found["objects"] and "top5" not in found["objects"]
    assert "top5" in many["objects"]
    told = [each for each in found["missing"] if "top-5" in each]
    assert len(told) == 1 and told[0].startswith("the judge chooses among 5 subjects or fewer")
    assert not [each for each in many["missing"] if "top-5" in each]


def test_a_prompt_that_the_judge_cannot_score_spoils_no_mean():
    stranger = EvaluationPrompt("erased", "My Dog", "my dog", 1, "My Dog")
    prompts = [stranger, *PROMPTS[1:]]
    metrics = evaluate(prompts, BEFORE, AFTER, judge=ForgetfulJudge()).metrics
    assert metrics["erased"]["text_image"] == {"value": 0.25, "n": 1, "original": 0.25}
    assert metrics["preserved"]["text_image"]["value"] == pytest.approx((0.5 + 0.75) / 2)
    json.dumps(metrics, allow_nan=False)
    only = evaluate([stranger, PROMPTS[2]], BEFORE[:2], AFTER[:2], judge=ForgetfulJudge()).metrics
    assert "text_image" not in only["erased"] and "text_image" in only["preserved"]


def test_specificity_is_the_part_of_the_concepts_kind():
    judge = PaintedJudge()
    metrics = evaluate(PROMPTS, BEFORE, AFTER, judge=judge, specificity="objects").metrics
    assert metrics["harmonic"]["specificity"] == 1.0
    absent = evaluate(PROMPTS, BEFORE, AFTER, judge=judge, specificity="styles").metrics
    assert absent["harmonic"]["specificity_part"] == "preserved"


def test_pictures_must_match_the_prompts():
    with pytest.raises(ValueError, match="6 prompts, 5 and 6 pictures"):
        evaluate(PROMPTS, BEFORE[:5], AFTER, judge=None)


def test_scene_is_read_from_the_end_of_a_prompt():
    scenes = ("at night", "in the park at night")
    assert scene_in("A cat In The Park at night", scenes) == "in the park at night"
    assert scene_in("at nightfall", scenes) == "" and scene_in("a cat", scenes) == ""


def test_wilson_interval_of_known_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(hits, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(7, 7)[1] == 1.0 and wilson_interval(0, 7)[0] == 0.0
    with pytest.raises(ValueError, match="no pictures"):
        rate(np.zeros(0, bool))


def test_rank_of_the_expected_class():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    rows = class_rows(["a", "b", "c"], ["B", "a", "a"])
    assert ranks(probabilities, rows).tolist() == [2, 1, 2]
    assert class_rows(["a"], ["z"]).tolist() == [-1]


def test_harmonic_mean_of_the_extremes():
    assert overall(0.0, 1.0) == 1.0 and overall(1.0, 1.0) == 0.0 and overall(0.0, 0.0) == 0.0
    assert overall(0.04, 0.9) == pytest.approx(2 / (1 / 0.96 + 1 / 0.9))
    with pytest.raises(ValueError, match="proportions"):
        harmonic_mean([1.2])


def test_pixel_features_are_mean_colours():
    images = np.zeros((2, 20, 12, 3), np.uint8)
    images[1] = 255
    images[0, :, :, 2] = 51
    features = pixel_features(images)
    assert features.shape == (2, 192)
    assert np.allclose(features[1], 1) and np.allclose(features[0].reshape(-1, 3)[:, 2], 0.2)
    assert pixel_changes(images[:1], images[1:]).mean() == pytest.approx((1 + 1 + 0.8) / 3)


def test_pixel_measures_are_those_of_all_pictures_at_once():
    first, second = np.random.default_rng(0).integers(0, 256, (2, 5, 37, 52, 3), np.uint8)
    rows, columns = (_cells(size) for size in (37, 52))
    whole = np.einsum("ah,nhwc,bw->nabc", rows, first / 255.0, columns).reshape(5, -1)
    assert pixel_features(first) == pytest.approx(whole, abs=1e-12)
    change = np.abs(first.astype(np.int16) - second).mean() / 255
    assert pixel_changes(first, second).mean() == pytest.approx(change, abs=1e-12)


def test_measuring_without_a_judge_takes_no_more_memory_for_more_pictures():
    def peak(count):
        prompts = [EvaluationPrompt("erased", "Adam", "adam", index, "") for index in range(count)]
        pictures = np.zeros((count, 256, 256, 3), np.uint8)
        tracemalloc.start()
        evaluate(prompts, pictures, pictures, judge=None)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # what numpy imports when it is first asked
    picture = 256 * 256 * 3
    assert peak(24) - peak(2) < picture
