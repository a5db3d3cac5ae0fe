"""Metrics and judges are chosen by name, refused by name, and added from outside the package."""

import importlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mace_exp.config.composing import composed_run
from mace_exp.evaluation.judges import JUDGES
from mace_exp.evaluation.judges.base import (
    ANSWERS,
    FEATURES,
    PERSON,
    SUBJECT,
    TEXT_IMAGE,
    unknown_concepts,
    warn_of_unknown,
)
from mace_exp.evaluation.metrics import METRICS
from tests.composing import composed
from tests.random_evaluation import RandomJudge, evaluate, random_pictures, random_suite
from tests.whole_run import PEOPLE, Run, read

RECORDED = Path(__file__).parent / "data" / "metrics.json"
FORMER = ["pixel_change", "text_image", "accuracy", "scenes", "harmonic", "distances"]
DEFAULT = [*FORMER[:4], "persons", *FORMER[4:], "part_distances"]
FURTHER = ["fid", "kid", "cmmd", "perceptual"]
SUITE, PICTURES = random_suite(), random_pictures()


@pytest.mark.parametrize(
    ("case", "judge", "specificity"),
    [
        ("judged", RandomJudge(), "preserved"),
        ("judged, specificity of objects", RandomJudge(), "objects"),
        ("without a judge", None, "preserved"),
    ],
)
def test_the_default_metrics_are_those_recorded_before_they_could_be_chosen(
    case: str, judge: RandomJudge | None, specificity: str
) -> None:
    """Same keys in the same order; figures up to the rounding of another machine's BLAS.

    Top-5 accuracies of scenes are gone, as the judge of this test knows no more than five.
    Beside them text scores have an interval and n now, and the intervals of whole parts, which were
    Wilson's, respect that pictures of one concept are alike: they hold the former ones. Distances
    and harmonic means have intervals, too.
    """
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))[case]
    found = evaluate(SUITE, *PICTURES, judge=judge, metrics=FORMER, specificity=specificity)
    values, former = (dict(leaves(each)) for each in (found.metrics, recorded["metrics"]))
    added = re.compile(r"\.\w+\.text_image\.(low|high|n)|.*interval.*|\.text_image_difference.*")
    former = {key: each for key, each in former.items() if ".scenes.top5." not in key}
    assert [key for key in values if not added.fullmatch(key)] == list(former)
    for key, before in former.items():
        if re.fullmatch(r"\.\w+\.(accuracy|top5)\.low", key):
            assert values[key] <= before + 1e-12  # type: ignore[operator]
        elif re.fullmatch(r"\.\w+\.(accuracy|top5)\.high", key):
            assert values[key] >= before - 1e-12  # type: ignore[operator]
        else:
            exact = isinstance(before, str)
            assert values[key] == (before if exact else pytest.approx(before, rel=1e-9, abs=1e-12))
    if "before" in recorded:
        assert (found.before, found.after) == (recorded["before"], recorded["after"])


def leaves(values: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each value with its dotted key, in order."""
    if isinstance(values, dict):
        for key, each in values.items():
            yield from leaves(each, f"{prefix}.{key}")
    elif isinstance(values, list):
        for index, each in enumerate(values):
            yield f"{prefix}.{index}", each
    else:
        yield prefix, values


def test_the_default_list_names_every_metric_but_those_that_want_an_encoder() -> None:
    for option in ("quick", "thorough"):
        evaluation = composed(f"evaluation={option}").evaluation.active()
        assert evaluation is not None and evaluation.metrics == DEFAULT
    assert [*DEFAULT, *FURTHER] == list(METRICS)


def test_the_order_of_the_metrics_changes_no_figure() -> None:
    forward = evaluate(SUITE, *PICTURES, judge=RandomJudge(), metrics=DEFAULT).metrics
    backward = evaluate(SUITE, *PICTURES, judge=RandomJudge(), metrics=DEFAULT[::-1]).metrics
    assert sorted(backward.pop("missing")) == sorted(forward.pop("missing"))
    assert backward == forward


@pytest.mark.parametrize("name", [*DEFAULT, *FURTHER])
def test_a_metric_alone_measures_what_it_measures_among_others(name: str) -> None:
    everything = dict(leaves(evaluate(SUITE, *PICTURES, judge=RandomJudge()).metrics))
    alone = evaluate(SUITE, *PICTURES, judge=RandomJudge(), metrics=[name]).metrics
    alone.pop("missing")
    assert alone and set(leaves(alone)) <= set(everything.items())


class SubjectJudge:
    """A judge that knows subjects alone, and has no method for anything else."""

    classes = {SUBJECT: RandomJudge.classes[SUBJECT]}

    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {SUBJECT: RandomJudge().probabilities(images)[SUBJECT]}


class Scorer:
    """A judge that scores pictures against prompts, as CLIP does."""

    features = RandomJudge.features
    text_image_score = RandomJudge.text_image_score
    _drawn = RandomJudge._drawn


def test_a_judge_is_asked_only_what_it_supports_and_the_rest_is_reported() -> None:
    everything = evaluate(SUITE, *PICTURES, judge=RandomJudge())
    judge = SubjectJudge()
    found = evaluate(SUITE, *PICTURES, judge=judge, supports=frozenset({SUBJECT}))
    metrics = found.metrics
    assert metrics["erased"]["accuracy"] == everything.metrics["erased"]["accuracy"]
    assert metrics["distances"]["features"] == "pixels"
    assert "scenes" not in metrics and "text_image" not in metrics["general"]
    assert metrics["missing"][0] == (
        "the judge gives no person or scene or text_image: accuracy and persons and text scores "
        "are not measured"
    )
    named = zip(found.after, SUITE, strict=True)
    assert all(bool(name) == (prompt.part != "general") for name, prompt in named)
    answers = frozenset({FEATURES, TEXT_IMAGE})
    scored = evaluate(SUITE, *PICTURES, judge=Scorer(), supports=answers)
    assert scored.metrics["erased"]["text_image"] == everything.metrics["erased"]["text_image"]
    assert scored.metrics["distances"] == everything.metrics["distances"]
    assert scored.metrics["missing"] == [
        "the judge gives no person or scene or subject: accuracy and persons are not measured"
    ]
    assert set(scored.after) == {""}


def test_a_judge_that_lacks_an_answer_of_its_option_is_refused_when_it_is_loaded() -> None:
    for answer, method in ((PERSON, "persons"), (TEXT_IMAGE, "text_image_score")):
        with pytest.raises(ValueError, match=f"SubjectJudge .*'{answer}'.*{method}"):
            evaluate(SUITE, *PICTURES, judge=SubjectJudge(), supports=frozenset({SUBJECT, answer}))


@pytest.mark.parametrize("given", ["[accurcy]", "[]", "[accuracy,accuracy]"])
def test_metrics_that_are_none_are_refused_with_the_allowed_names(given: str) -> None:
    with pytest.raises(ValueError) as refused:
        composed(f"evaluation.metrics={given}")
    said = str(refused.value)
    assert said.startswith(f"evaluation.metrics = {given}".replace(",", ", "))
    assert ", ".join(METRICS) in said


def test_what_the_variants_of_a_judge_say_of_themselves() -> None:
    mini, none = composed("judge=mini").judge, composed("judge=none", "sampling=mini").judge
    assert (mini.side, mini.supports) == (96, ANSWERS)
    assert none.load() is None and none.side is None and not none.supports
    assert mini.unknown_subjects(["adam driver", "My Dog", "Pixel Art"]) == ["My Dog"]
    assert none.unknown_subjects(["My Dog"]) == []


def test_a_concept_that_the_judge_does_not_know_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="mace_exp"):
        warn_of_unknown(JUDGES["mini"](), ["Adam Driver", "My Dog"])
        warn_of_unknown(JUDGES["none"](), ["My Dog"])
    [record] = caplog.records
    assert "judge=mini" in record.getMessage() and "My Dog" in record.getMessage()
    assert "Adam Driver" not in record.getMessage()
    assert unknown_concepts(JUDGES["mini"](), ["Adam Drivr"]) == [("Adam Drivr", "Adam Driver")]


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page on metrics and judges in one language."""
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Import the page's metric and judge from modules outside the package; yield their folder."""
    registries = (METRICS, JUDGES)
    before = [dict(each) for each in registries]
    modules = ("my_metric", "my_judge")
    for name, text in zip(modules, blocks("python"), strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "judge").mkdir()
    [option] = blocks("yaml")
    (tmp_path / "judge" / "constant.yaml").write_text(option)
    monkeypatch.syspath_prepend(tmp_path)
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.import_module(name)
    yield tmp_path
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)  # type: ignore[arg-type]


def test_a_metric_and_a_judge_from_outside_the_package_measure_a_run(run: Run, added: Path) -> None:
    options = ("judge=constant", "judge.subject=Amy Adams", "evaluation.parts=[erased]")
    metrics = "evaluation.metrics=[accuracy,brightness,text_image]"
    folder = run("added", f"hydra.searchpath=[{added}]", PEOPLE, *options, metrics)
    found = read(folder / "metrics.json")
    assert found["erased"]["accuracy"]["value"] == 1.0  # sees Amy Adams in every picture
    few = "the judge chooses among 2 subjects or fewer for 1 of 2 pictures"
    assert found["missing"] == [
        "the judge gives no text_image: text scores are not measured",
        "the judge does not know 'Adam Driver' (erased)",
        f"{few}: they have no top-5 accuracy",
    ]
    pictures = [np.asarray(Image.open(each)) for each in (folder / "samples/after").glob("*.png")]
    mean = float(np.mean([each.mean() for each in pictures]) / 255)
    assert found["erased"]["brightness"] == pytest.approx(mean)
    assert "brightness" in (folder / "report.html").read_text(encoding="utf-8").lower()


def test_a_judge_from_outside_has_keys_that_are_checked_like_any_other(added: Path) -> None:
    place = f"hydra.searchpath=[{added}]"
    assert composed_run(place, "judge=constant", "judge.subject=Noah").judge.name == "constant"
    with pytest.raises(ValueError, match="judge.subjct: there is no such key. Did you mean"):
        composed_run(place, "judge=constant", "+judge.subjct=Noah")


def test_two_metrics_that_give_the_same_figure_are_refused(added: Path) -> None:
    METRICS["twice"] = METRICS["brightness"]
    with pytest.raises(ValueError, match="two metrics .* give 'brightness'"):
        evaluate(SUITE, *PICTURES, judge=None, metrics=["brightness", "twice"])
