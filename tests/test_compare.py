"""Scores are stored once: measured again without pictures, and compared pair by pair."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mace_exp.compare import compared, short_names
from mace_exp.compare import main as compare
from mace_exp.evaluation.evaluate import measure_pictures
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.perceptual import perceptual_distances
from mace_exp.evaluation.most_different import most_different
from mace_exp.evaluation.paired import RATES, differences, paired
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scores import ScoredPictures, read_scores
from mace_exp.metrics import changed_settings, remeasure
from mace_exp.metrics import main as metrics
from mace_exp.report.compare_page import differing_settings
from mace_exp.report.formatting import signed
from mace_exp.utils.files import write_json
from tests.random_evaluation import RandomJudge, random_pictures, random_suite

BEFORE, AFTER = random_pictures()
MEASURED = Measured(random_suite(), BEFORE, AFTER, judge=RandomJudge())


def scored(after: np.ndarray = AFTER) -> ScoredPictures:
    own = Measured(MEASURED.prompts, BEFORE, after, judge=MEASURED.judge)
    return ScoredPictures(own.prompts, *own.scored.scores, "random")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder that holds what the stage metrics leaves there."""
    folder = tmp_path / "run"
    scored().write(folder / "scores.csv")
    write_json(folder / "metrics.json", measure_pictures(MEASURED).metrics)
    write_json(folder / "keys.json", {"edit": "e", "metrics": "m"})
    config = {"concepts": {"names": ["Person A"], "kind": "person", "kinds": {}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_table_of_scores_is_read_exactly_as_it_was_written(tmp_path: Path) -> None:
    written = scored()
    written.write(tmp_path / "scores.csv")
    found = read_scores(tmp_path / "scores.csv")
    assert list(found.prompts) == list(written.prompts) and found.judge == "random"
    assert found.answers == MEASURED.answers - {"features"}
    for one, two in ((found.before, written.before), (found.after, written.after)):
        for name, values in vars(one).items():
            np.testing.assert_array_equal(values, getattr(two, name))


def test_measuring_again_by_the_same_settings_changes_nothing(run: Path) -> None:
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    remeasure(run, {})
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_another_threshold_takes_no_picture_and_recognises_less(run: Path) -> None:
    former = read(run / "metrics.json")
    assert metrics([str(run), "evaluation.threshold=0.4"]) == 0
    found = read(run / "metrics.json")
    part = "preserved"
    assert found[part]["accuracy"]["value"] < former[part]["accuracy"]["value"]
    after = scored().after
    rows = MEASURED.rows(part)
    rows = rows[np.isfinite(after.subject_rank[rows])]
    hits = (after.subject_rank[rows] == 1) & (after.subject_probability[rows] >= 0.4)
    assert found[part]["accuracy"]["value"] == hits.mean()
    assert found["distances"] == former["distances"]
    assert found[part]["distances"] == former[part]["distances"]
    assert read(run / "keys.json") == {"edit": "e"}, "it is not of the run's own settings"
    remeasure(run, {})
    assert read(run / "metrics.json") == former


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lora.rank=4", "takes a run"),
        ("evaluation.threshold=2", "at most 1"),
        ("evaluation.metrics=accuracy", "give a list"),
    ],
)
def test_what_scores_cannot_tell_is_refused(change: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed_settings([change])


def test_scores_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    for text, said in (("a,b\n1,2\n", "no column 'part'"), ("", "no column")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            read_scores(file)
    assert metrics([str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace(",after,", ",later,", 1)]
)
def test_a_row_that_is_cut_is_not_left_out_of_the_count(
    tmp_path: Path, damage: Callable[[str], str]
) -> None:
    file = tmp_path / "scores.csv"
    scored().write(file)
    file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match="scores.csv, row .* is cut, or none of a run's"):
        read_scores(file)


def test_a_run_does_not_differ_from_itself() -> None:
    same = scored()
    found = differences(same, same)
    assert found and all(d.difference == 0 for d in found)
    for each in found:
        assert each.low == -each.high
        assert (each.high > 0) == (each.measure in RATES), "n pairs that agree prove no equality"
    assert most_different(same, same, 3) == {}


def test_differences_are_of_the_same_prompt_and_seed_in_any_order() -> None:
    one, two = scored(), scored(AFTER[::-1].copy())
    order = np.random.default_rng(0).permutation(len(two.prompts))
    turned = ScoredPictures(
        [two.prompts[i] for i in order],
        *(
            replace(
                scores,
                **{
                    name: [values[i] for i in order] if isinstance(values, list) else values[order]
                    for name, values in vars(scores).items()
                },
            )
            for scores in (two.before, two.after)
        ),
        judge="random",
    )
    assert differences(one, turned) == differences(one, two)
    for first, second in paired(one, turned):
        assert one.prompts[first] == turned.prompts[second]
    swapped = differences(two, one)
    for there, back in zip(differences(one, two), swapped, strict=True):
        assert back.difference == pytest.approx(-there.difference)
        assert there.low <= there.difference <= there.high
    farthest = most_different(one, two, 4)
    for pairs in farthest.values():
        gaps = [abs(each.difference) for each in pairs]
        assert gaps == sorted(gaps, reverse=True) and len(gaps) <= 4


def test_runs_without_a_common_prompt_are_refused() -> None:
    other = replace(
        scored(), prompts=[replace(each, seed=each.seed + 10**6) for each in scored().prompts]
    )
    with pytest.raises(ValueError, match="no prompt and seed is in both"):
        paired(scored(), other)


def test_the_command_writes_table_json_and_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    scored(AFTER[::-1].copy()).write(other / "scores.csv")
    for folder, pictures in ((run, AFTER), (other, AFTER[::-1])):
        (folder / "samples" / "after").mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / "samples" / "after" / f"{index:04d}.png")
    out = tmp_path / "out"
    assert compare([str(run), str(other), "--out", str(out), "--pictures", "2"]) == 0
    said = capsys.readouterr().out
    assert "Preserved people" in said and "…" not in said
    [pair] = read(out / "compare.json")["comparisons"]
    assert pair["differences"][0]["n"] > 0 and pair["pictures"]
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2 * len(pair["pictures"])
    assert "http://" not in page and "https://" not in page
    assert compare([str(run)]) == 2


def test_names_are_as_short_as_tells_runs_apart(tmp_path: Path) -> None:
    runs = [tmp_path / "a" / "0", tmp_path / "b" / "0", tmp_path / "b" / "1"]
    assert short_names(runs) == ["a/0", "b/0", "b/1"]
    assert short_names(runs[1:]) == ["0", "1"]
    assert short_names([tmp_path / "c" / "one", runs[2]]) == ["c/one", "b/1"], "of which sweep"


def test_settings_that_differ_are_told_once_and_others_not() -> None:
    first = {"lora": {"rank": 4}, "preservation": {"prior_weight": 1}, "cfr": {"prior_weight": 1}}
    second = {"lora": {"rank": 4}, "preservation": {"prior_weight": 2}, "cfr": {"prior_weight": 2}}
    elsewhere = {"cache_dir": "other", "tracking": {"group": "other"}}
    found = differing_settings(first, second | elsewhere)
    assert found == [("preservation.prior_weight", "1", "2")]
    assert differing_settings(first, {}) == [], "a folder without a configuration"


def test_of_other_options_the_settings_that_both_have_are_told() -> None:
    uce = {"method": {"ridge": 0.5, "tokens": "last"}, "options": {"method": "uce"}}
    speed = {"method": {"ridge": 0.1, "slack": 0}, "options": {"method": "speed"}}
    found = differing_settings(uce, speed)
    assert found == [("method", "uce", "speed"), ("method.ridge", "0.5", "0.1")]
    first, second = ({"lora": {"rank": n, "batch_size": n}} for n in (4, 8))
    assert len(differing_settings(first, second)) == 2, "equal values by chance"


def test_a_sign_is_that_of_the_number_even_where_it_is_rounded_to_zero() -> None:
    numbers = (-0.0004, 0.0, 0.0004, -1.5)
    assert [signed(each) for each in numbers] == ["−0.000", "±0.000", "+0.000", "−1.500"]


def write_run(folder: Path, found: ScoredPictures, **config: Any) -> Path:
    found.write(folder / "scores.csv")
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def test_runs_that_were_not_judged_alike_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write_run(tmp_path / "one", scored(), judge={"source": "a", "batch_size": 1})
    same = write_run(tmp_path / "same", scored(), judge={"source": "a", "batch_size": 2})
    other = write_run(tmp_path / "other", scored(), judge={"source": "b", "batch_size": 1})
    compared([one, same])
    assert not caplog.text
    compared([one, other])
    assert "judge.source = a and b" in caplog.text and "batch_size" not in caplog.text


def test_each_run_s_own_threshold_holds_unless_one_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write_run(tmp_path / "one", scored())
    strict = write_run(tmp_path / "strict", scored(), evaluation={"threshold": 0.5})
    [own] = [each for each in compared([one, strict])[0].differences if each.part == "objects"][:1]
    assert own.measure == "recognised" and own.second < own.first
    assert "threshold = 0.0 and 0.5" in caplog.text
    [given] = [
        each for each in compared([one, strict], threshold=0.5)[0].differences if each.n == own.n
    ][:1]
    assert given.first == given.second


def test_prompts_of_one_run_alone_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = scored()
    few = Measured(MEASURED.prompts[:50], BEFORE[:50], AFTER[:50], judge=MEASURED.judge)
    part = ScoredPictures(few.prompts, *few.scored.scores, "random")
    compared([write_run(tmp_path / "a", whole), write_run(tmp_path / "b", part)])
    assert "share 50 of 210 prompts and seeds" in caplog.text


def with_distances(after: np.ndarray) -> tuple[ScoredPictures, dict[str, Any]]:
    found = measure_pictures(Measured(MEASURED.prompts, BEFORE, after, judge=MEASURED.judge))
    return ScoredPictures(found.scored.prompts, *found.scored.scores, "random"), found.metrics


def test_perceptual_distances_are_stored_measured_again_and_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []
    for name, after in (("near", BEFORE), ("far", AFTER)):
        pictures, metrics = with_distances(after)
        runs.append(write_run(tmp_path / name, pictures))
        write_json(runs[-1] / "metrics.json", metrics)
    former = read(runs[1] / "metrics.json")
    np.testing.assert_array_equal(
        read_scores(runs[1] / "scores.csv").after.perceptual, pictures.after.perceptual
    )
    assert remeasure(runs[1], {}) == former
    found = [each for each in compared(runs)[0].differences if each.measure == "perceptual"]
    assert {each.part for each in found} == {*MEASURED.parts}
    for each in found:
        assert each.first == 0 < each.low < each.difference < each.high
        assert each.second == pytest.approx(former[each.part]["perceptual"]["value"])
    former["erased"]["perceptual"]["features"] = "another encoder"
    write_json(runs[1] / "metrics.json", former)
    found = [each for each in compared(runs)[0].differences if each.measure == "perceptual"]
    assert not found and "perceptual distances in other features" in caplog.text


def test_intervals_of_few_concepts_stay_within_what_is_possible() -> None:
    """Of two concepts Student's quantile is 12.7."""
    names = ["Person A", "Person B"] * 2
    prompts = [EvaluationPrompt("erased", name, str(i), i, name) for i, name in enumerate(names)]
    own = Measured(prompts, BEFORE[:4], AFTER[:4], judge=MEASURED.judge)
    run = ScoredPictures(prompts, *own.scored.scores, "random")
    hits = [np.array([1.0, 9, 1, 9]), np.array([9.0, 9, 1, 1])]
    one, two = (replace(run, after=replace(run.after, subject_rank=each)) for each in hits)
    found = {each.measure: each for each in differences(one, two)}
    assert -1 <= found["recognised"].low < found["recognised"].high <= 1
    values = perceptual_distances(own)["erased"]["perceptual"]
    assert 0 <= values["low"] <= values["value"] <= values["high"]


def test_scores_of_earlier_versions_have_no_perceptual_distance(run: Path) -> None:
    assert np.isnan(read_scores(run / "scores.csv").after.perceptual).all()
    header = (run / "scores.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert "perceptual" not in header and "subject_classes" in header
