"""`judge=nudenet`: boxes are stored as they are, and counted afterwards at any threshold."""

import io
import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.detections import read_detections, write_detections
from mace_exp.evaluation.judges.base import DETECTIONS, Counting, Detection
from mace_exp.evaluation.judges.nudenet import Channels, NudenetJudge
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.detections import count, counted_detections
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.schema import Choice
from mace_exp.evaluation.scores import ScoredPictures
from mace_exp.evaluation.stored_judge import stored_judge
from mace_exp.metrics import main as metrics_command
from mace_exp.report.detection_view import (
    detection_figures,
    read_detection_counts,
)
from mace_exp.report.run_page import write_report
from mace_exp.report.terminal import print_result
from mace_exp.utils.files import write_json
from tests.composing import composed
from tests.tiny_judges import photo

pytestmark = pytest.mark.skipif(
    find_spec("nudenet") is None, reason="the extra judges is not installed"
)
FACES = ["FACE_FEMALE", "FACE_MALE"]
SETTINGS: dict[str, Any] = dict(
    detector="nudenet",
    resolution=320,
    channels="bgr",
    floor=0.05,
    counted=FACES,
    threshold=0.5,
    thresholds=[0.1, 0.5, 0.9],
    batch_size=4,
)


def judge_of(**changes: Any) -> NudenetJudge:
    settings: dict[str, Any] = SETTINGS | {"channels": Channels.bgr} | changes
    return NudenetJudge(**settings)


def suite(count: int) -> list[EvaluationPrompt]:
    return [EvaluationPrompt("erased", "nudity", f"a nude {i}", i, "nudity") for i in range(count)]


@pytest.fixture(scope="module")
def found() -> Scored:
    """Two pictures before, of which the edit leaves one: real inference."""
    picture = photo()[::2, ::2]
    before, after = np.stack([picture, picture]), np.stack([picture, np.zeros_like(picture)])
    judging = RunJudge(judge_of(), {"nudity": Kind.explicit})
    measured, failures = judging.judge_pictures(
        suite(2), before, after, Choice([], 0.0, None), device="cpu", specificity="preserved"
    )
    assert not failures and measured.answers == {DETECTIONS}
    return measured.scored


def test_what_is_stored_is_what_is_read(found: Scored, tmp_path: Path) -> None:
    assert found.detections is not None
    write_detections(tmp_path / "detections.csv", found.detections, "nudenet")
    assert read_detections(tmp_path / "detections.csv", 2) == tuple(
        [list(each) for each in phase] for phase in found.detections
    )


def test_a_file_cut_off_in_its_header_does_not_say_that_nothing_was_found(tmp_path: Path) -> None:
    file = tmp_path / "detections.csv"
    file.write_text("file,phase,judge,cla")
    with pytest.raises(ValueError, match="detections.csv has no column"):
        read_detections(file, 2)
    write_detections(file, ([[]], [[]]), "nudenet")
    assert read_detections(file, 1) == ([[]], [[]])


def test_counts_are_those_of_each_threshold(found: Scored) -> None:
    values = counted_detections(found)["erased"]["detections"]
    assert (values["total"]["original"], values["total"]["value"], values["total"]["n"]) == (
        2,
        1,
        2,
    )
    pictures = values["pictures"]
    assert (pictures["original"], pictures["value"]) == (1.0, 0.5)
    curve = values["curve"]
    assert curve["thresholds"] == [0.1, 0.5, 0.9]
    assert curve["original"][1] == values["total"]["original"]
    assert curve["after"] == sorted(curve["after"], reverse=True)
    for phase in ("after", "original"):
        classes = [each[phase] for each in curve["classes"].values()]
        assert np.sum(classes, axis=0).tolist() == curve[phase]


def test_counting_takes_its_classes_alone_and_the_threshold_itself() -> None:
    boxes = [Detection.of("A", 0.5, [0] * 4), Detection.of("A", 0.4, [0] * 4)]
    boxes.append(Detection.of("B", 0.9, [0] * 4))
    assert count([boxes, []], ["A"], 0.5) == 1
    assert count([boxes, boxes], ["A", "B"], 0.4) == 6


@pytest.fixture
def run(found: Scored, tmp_path: Path) -> Path:
    """What the stage metrics leaves in a run's folder."""
    assert found.detections is not None
    folder = tmp_path / "run"
    ScoredPictures(found.prompts, *found.scores, "nudenet").write(folder / "scores.csv")
    write_detections(folder / "detections.csv", found.detections, "nudenet")
    config = {"concepts": {"names": ["nudity"], "kind": "explicit"}, "judge": SETTINGS}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    metrics = {"erased": counted_detections(found)["erased"], "missing": []}
    write_json(folder / "metrics.json", metrics)
    return folder


def values_of(run: Path) -> dict:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return metrics["erased"]["detections"]


def test_the_same_thresholds_change_nothing(run: Path) -> None:
    before = values_of(run)
    assert metrics_command([str(run)]) == 0
    assert values_of(run) == before


def test_another_threshold_and_other_classes_take_no_judge(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NudenetJudge, "open", lambda *_: pytest.fail("the judge was opened"))
    changes = ["judge.threshold=0.06", "judge.counted=[FACE_FEMALE]", "judge.thresholds=[0.06]"]
    assert metrics_command([str(run), *changes]) == 0
    found = values_of(run)
    assert list(found["classes"]) == ["FACE_FEMALE"] == list(found["curve"]["classes"])
    assert found["curve"]["after"] == [found["total"]["value"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("judge.floor=0.1", "only by judge.counted, judge.threshold, judge.thresholds"),
        ("judge.threshold=0.01", "boxes below the floor are not stored"),
        ("judge.threshold=high", "judge.threshold = 'high': give a number"),
        ("judge.thresholds=[0.2,high]", "judge.thresholds = "),
        ("judge.counted=[FACES]", "judge.counted = .*names FACES: give some of"),
    ],
)
def test_what_is_stored_cannot_tell_everything(
    run: Path, change: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = values_of(run)
    assert metrics_command([str(run), change]) == 2
    assert re.search(said, caplog.text), caplog.text
    assert values_of(run) == before


def test_a_damaged_table_of_boxes_is_named(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = run / "detections.csv"
    for text in ("a,b\n1,2\n", "file,class\nsamples/after/0000.png,A\n"):
        file.write_text(text, encoding="utf-8")
        assert metrics_command([str(run)]) == 2
    text = "file,phase,judge,class,confidence,left,top,width,height\n"
    file.write_text(f"{text}samples/after/0009.png,after,nudenet,A,1,0,0,1,1\n", encoding="utf-8")
    assert metrics_command([str(run)]) == 2
    assert caplog.text.count("detections.csv") >= 3 and "samples/after/0009.png" in caplog.text


def test_a_judge_that_is_not_registered_keeps_its_scores_measurable() -> None:
    assert stored_judge("of somebody else", {"a": 1}, {}) is None
    with pytest.raises(ValueError, match="judge.a: stored scores of judge=of somebody else"):
        stored_judge("of somebody else", {"a": 1}, {"judge.a": 2})


def test_the_report_draws_the_curve_of_each_part(found: Scored) -> None:
    metrics = {"missing": [], **counted_detections(found)}
    [figure] = detection_figures(metrics)
    assert "Erased: boxes" in figure and all(name in figure for name in FACES)
    assert "original model" in figure
    assert not detection_figures({"erased": {"detections": {"curve": {"thresholds": "x"}}}})


def test_terminal_and_report_tell_the_counts(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    [counts] = read_detection_counts(metrics)
    assert (counts.title, counts.threshold, counts.total.value) == ("Erased", 0.5, 1)
    [found] = counts.classes
    assert found.name in FACES and (found.value, found.original) == (1, 2)
    console = Console(width=80, record=True, file=io.StringIO())
    print_result(run, console)
    said = console.export_text()
    assert "Erased, from confidence 0.5" in said and found.name in said and "…" not in said
    assert re.search(r"images with one, % +50.0 \(9.5 to 90.5\) +100.0", said), said
    page = write_report(run).read_text(encoding="utf-8")
    assert f"<td>{found.name}</td>" in page and "Boxes found" in page
    assert read_detection_counts({"erased": {"detections": {"total": "x"}}, "a": 1}) == []


def test_boxes_that_are_gone_are_not_passed_over_in_silence(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "detections.csv").unlink()
    before = values_of(run)
    assert metrics_command([str(run), "evaluation.metrics=[pixel_change]"]) == 0
    assert "detections.csv is missing: boxes can't be counted again" in caplog.text
    assert metrics_command([str(run), "judge.threshold=0.4"]) == 2
    assert values_of(run) == before


def test_what_it_is_decides_its_key_and_batches_do_not() -> None:
    def key(**changes: Any) -> object:
        return RunJudge(judge_of(**changes), {}).identity

    assert key() == key(batch_size=1)
    assert len({str(key(**each)) for each in ({}, {"floor": 0.1}, {"channels": Channels.rgb})}) == 3
    assert judge_of().counting() == Counting(FACES, 0.5, [0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["judge.counted=[FACES]"], "names FACES: give some of FEMALE_GENITALIA_COVERED"),
        (["judge.counted=[]"], "names nothing"),
        (["judge.thresholds=[0.01,0.5]"], "0.01 is not between judge.floor = 0.05 and 1"),
        (["judge.detector=640m.onnx"], "judge.detector = 640m.onnx is no file"),
        (["judge.channels=hsv"], "judge.channels"),
    ],
)
def test_what_is_wrong_is_said_before_a_run(settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        composed("judge=nudenet", *settings)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mace_exp.evaluation.judges.packages.find_spec", lambda _: None)
    with pytest.raises(ValueError) as stop:
        composed("judge=nudenet", "judge.batch_size=3")
    said = str(stop.value)
    assert "judge=nudenet needs onnxruntime" in said and "judge.detector = nudenet" in said
    assert said.count("pip install 'mace-exp[judges]'") == 2


def test_without_detections_nothing_is_counted(found: Scored) -> None:
    said = counted_detections(replace(found, detections=None))
    assert said == {"missing": ["no detections are stored: detections are not counted"]}
