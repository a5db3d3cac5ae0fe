"""`judge=faces`: NudeNet's detector finds the face of a real photo, tiny networks embed it."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mace_exp.compare import compared
from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.evaluate import measure_pictures
from mace_exp.evaluation.judges.base import PERSON, SUBJECT, JudgeError, JudgeTask
from mace_exp.evaluation.judges.faces import FacesJudge
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.faces import accuracies_with_face
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.recognisers.identities import (
    NO_FACE,
    IdentityJudge,
    OnnxEmbedder,
    reference_faces,
)
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.evaluation.recognisers.opening import face_detector
from mace_exp.evaluation.schema import Choice
from mace_exp.evaluation.scores import ScoredPictures
from tests.composing import composed
from tests.tiny_judges import photo, save_arcface, save_vit

pytestmark = pytest.mark.skipif(
    find_spec("nudenet") is None, reason="the extra judges is not installed"
)
PHOTO = photo()[::2, ::2]
BLUE = PHOTO[..., ::-1]  # somebody else, to a recogniser of colours
GRACE, OTHER = "Grace Hopper", "Jean-Luc Côté"
SUBJECTS = {GRACE: Kind.person, OTHER: Kind.person, "cat": Kind.object}
BLACK = np.zeros_like(PHOTO)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of photos, its names spelled otherwise than a run does, and the recogniser."""
    root = tmp_path_factory.mktemp("faces")
    for name, image in (("grace_hopper", PHOTO), ("JEAN LUC CO\u0302TE\u0301", BLUE)):
        (root / "photos" / name).mkdir(parents=True)
        Image.fromarray(image).save(root / "photos" / name / "1.png")
    return root / "photos", save_arcface(root / "arcface.onnx")


def judge_of(places: tuple[Path, Path], **changes: Any) -> FacesJudge:
    settings: dict[str, Any] = dict(
        references=str(places[0]),
        photos_per_person=1,
        detector="nudenet",
        recogniser=str(places[1]),
        allow_download=False,
        floor=0.1,
        face_threshold=0.3,
        threshold=0.5,
        batch_size=2,
    )
    return FacesJudge(**(settings | changes))


@pytest.fixture(scope="module")
def opened(places: tuple[Path, Path]) -> IdentityJudge:
    return judge_of(places).open(JudgeTask(SUBJECTS, "cpu"))


def test_names_are_compared_without_case_hyphens_and_composition() -> None:
    assert name_key("Jean-Luc Co\u0302te\u0301") == name_key("JEAN_LUC  Côté")
    assert name_key("Beyonce") != name_key("Beyoncé")


def test_people_are_recognised_and_faceless_pictures_are_nobody(opened: IdentityJudge) -> None:
    names = opened.classes[SUBJECT]
    assert set(names[:2]) == {GRACE, OTHER} and names[2] == NO_FACE
    grace, other = names.index(GRACE), names.index(OTHER)
    images = np.stack([PHOTO, BLUE, BLACK])
    found = opened.probabilities(images)[SUBJECT]
    assert [names[row] for row in found.argmax(axis=1)] == [GRACE, OTHER, NO_FACE]
    assert found[0, grace] == pytest.approx(1, abs=1e-6) and found[0, other] < 1
    assert found[2].tolist() == [-1, -1, 1]
    persons = opened.persons(images)
    assert (persons[:2] > 0.3).all() and persons[2] == 0
    assert [len(each) > 0 for each in opened.detections(images)] == [True, True, False]


def test_of_two_faces_the_nearer_one_counts(opened: IdentityJudge) -> None:
    both = np.concatenate([PHOTO, BLUE], axis=1)
    [row] = opened.probabilities(both[None])[SUBJECT]
    assert row[0] > 0.9 and row[1] > 0.9


def suite(names: list[str]) -> list[EvaluationPrompt]:
    return [
        EvaluationPrompt("erased", name, f"a portrait of {name}", i, name)
        for i, name in enumerate(names)
    ]


def measured(places: tuple[Path, Path], after: list[np.ndarray]) -> Scored:
    prompts = suite([GRACE, GRACE, OTHER, OTHER])
    before = np.stack([PHOTO, PHOTO, BLUE, BLACK])
    found, failures = RunJudge(judge_of(places), SUBJECTS).judge_pictures(
        prompts,
        before,
        np.stack(after),
        Choice([], 0.0, None),
        device="cpu",
        specificity="preserved",
    )
    assert not failures
    return found.scored


def test_accuracy_over_all_pictures_and_over_those_with_a_face(places: tuple[Path, Path]) -> None:
    scored = measured(places, [PHOTO, BLACK, BLACK, PHOTO])
    with_face = accuracies_with_face(scored)["erased"]["accuracy_with_face"]
    assert (with_face["value"], with_face["n"]) == (0.5, 2)
    assert (with_face["original"], with_face["original_n"]) == (1.0, 3)
    assert scored.threshold == 0.5 and scored.person_threshold == 0.3
    persons = scored.scores[1].person >= scored.person_threshold
    assert persons.tolist() == [True, False, False, True]


def test_all_pictures_without_a_face_are_no_success(places: tuple[Path, Path]) -> None:
    judging = RunJudge(judge_of(places), SUBJECTS)
    found, _ = judging.judge_pictures(
        suite([GRACE, OTHER]),
        np.stack([PHOTO, BLUE]),
        np.stack([BLACK, BLACK]),
        Choice([], 0.0, None),
        device="cpu",
        specificity="preserved",
    )
    metrics = measure_pictures(
        found, ["accuracy", "persons"], further=judging.config.metrics()
    ).metrics
    assert metrics["erased"]["accuracy"]["value"] == 0 and metrics["erased"]["accuracy"]["n"] == 2
    assert metrics["erased"]["persons"]["value"] == 0
    assert "no picture of the part erased shows a face" in metrics["missing"]
    assert judging.config.answers() >= {SUBJECT, PERSON}


def test_runs_are_compared_by_the_thresholds_of_their_judge(
    places: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [tmp_path / name for name in "abc"]
    turned = [PHOTO[:, ::-1], BLUE[:, ::-1]] * 2
    for run, images in zip(runs, (turned, turned, [PHOTO] * 4), strict=True):
        scored = measured(places, images)
        ScoredPictures(scored.prompts, *scored.scores, "faces").write(run / "scores.csv")
    strict = {"threshold": 0.9999999, "face_threshold": 0.99}
    lenient = {"threshold": -1.0, "face_threshold": 0.1}
    for run, changes in zip(runs, (lenient, strict, lenient), strict=True):
        settings = {"judge": asdict(judge_of(places, **changes))}
        (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    found = {(each.part, each.measure): each for each in compared(runs[:2])[0].differences}
    recognised, persons = (found["erased", name] for name in ("recognised", "persons"))
    assert (recognised.first, recognised.second) == (0.5, 0.0)
    assert (persons.first, persons.second) == (1.0, 0.0)
    assert "not judged alike" in caplog.text and "face_threshold = 0.1 and 0.99" in caplog.text
    table = (runs[2] / "scores.csv").read_text(encoding="utf-8").replace(",faces,", ",clip,")
    (runs[2] / "scores.csv").write_text(table, encoding="utf-8")
    compared([runs[0], runs[2]])
    assert "judge = faces and clip" in caplog.text


def test_a_transformers_encoder_recognises_too(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder = save_vit(tmp_path / "vit")
    judge = judge_of((places[0], folder)).open(JudgeTask(SUBJECTS, "cpu"))
    [row] = judge.probabilities(PHOTO[None])[SUBJECT]
    own = judge.classes[SUBJECT].index(GRACE)
    assert row[own] == pytest.approx(1, abs=1e-5) and row[1 - own] < 1


def test_a_recogniser_of_another_size_is_refused(tmp_path: Path) -> None:
    network = OnnxNetwork(save_arcface(tmp_path / "a.onnx", side=84), "cpu")
    with pytest.raises(JudgeError, match="reads 84 pixels a side: 112 are expected"):
        OnnxEmbedder(network, 2)


def test_a_photo_without_a_face_is_refused_before_anything_is_drawn(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "photos" / "grace-hopper"
    folder.mkdir(parents=True)
    Image.fromarray(BLACK).save(folder / "black.png")
    judging = RunJudge(judge_of((tmp_path / "photos", places[1])), SUBJECTS)
    with pytest.raises(ValueError, match="no face is found in .*black.png"):
        judging.check("cpu")
    detector = face_detector("nudenet", device="cpu", floor=0.1)
    assert len(reference_faces(detector, [places[0] / "grace_hopper" / "1.png"])) == 1


def problems(config: FacesJudge) -> str:
    return "\n".join(config.problems(SUBJECTS, [GRACE, "cat"]))


def test_missing_photos_are_named(places: tuple[Path, Path], tmp_path: Path) -> None:
    assert not problems(judge_of(places))
    assert "is not a folder" in problems(judge_of((tmp_path / "none", places[1])))
    assert "has no folder for 'Grace Hopper', who is erased; found: none" in problems(
        judge_of((tmp_path, places[1]))
    )
    said = problems(judge_of(places, photos_per_person=2))
    assert "grace_hopper holds 1 photo, and judge.photos_per_person = 2 are needed" in said
    (tmp_path / "Grace Hopper").mkdir()
    assert "contains no image" in problems(judge_of((tmp_path, places[1])))
    (tmp_path / "Grace Hopper" / "1.png").write_bytes(b"\x89PNG truncated")
    assert "1.png can't be read" in problems(judge_of((tmp_path, places[1])))


def test_missing_networks_are_named(places: tuple[Path, Path], tmp_path: Path) -> None:
    said = problems(judge_of(places, detector="yunet.onnx", recogniser=str(tmp_path / "a.onnx")))
    assert "judge.detector = yunet.onnx is no file *.onnx" in said
    assert "judge.recogniser = " in said and said.count("is no file") == 2
    assert "neither a folder nor a hub id" in problems(judge_of(places, recogniser="arcface"))


def test_photos_decide_the_key_and_batches_do_not(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    def key(config: FacesJudge) -> object:
        return RunJudge(config, SUBJECTS).identity

    first = key(judge_of(places))
    assert first == key(judge_of(places, batch_size=9))
    assert first != key(judge_of(places, threshold=0.6))
    assert first != key(judge_of((tmp_path, places[1])))
    assert first != key(judge_of((places[0], save_arcface(tmp_path / "b.onnx", side=84))))


def test_it_is_an_option_whose_people_may_be_unlisted(places: tuple[Path, Path]) -> None:
    config = composed(
        *("concepts=custom", "concepts.names=[Grace Hopper]", "judge=faces"),
        *(f"judge.references={places[0]}", f"judge.recogniser={places[1]}"),
    )
    assert config.judge.unknown_subjects(["Grace-Hopper", "Amy Adams"]) == ["Amy Adams"]
    assert "grace hopper" in config.judge.known_people()
    with pytest.raises(ValueError, match="judge.recogniser is not set"):
        composed("judge=faces", f"judge.references={places[0]}")
