"""`judge=clip` on tiny random models of the classes that it loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.evaluate import measure_pictures
from mace_exp.evaluation.judges.base import SUBJECT, Classifier, JudgeError, JudgeTask
from mace_exp.evaluation.judges.clip import ClipJudge
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.recognisers.vision import VisionEncoder
from mace_exp.evaluation.recognisers.zero_shot import ZeroShotJudge
from mace_exp.evaluation.schema import Choice
from mace_exp.evaluation.scoring import among_kinds
from tests.composing import composed
from tests.random_evaluation import random_pictures, random_suite
from tests.tiny_judges import save_clip, save_siglip, save_vit

SUBJECTS = {"cat": Kind.object, "dog": Kind.object, "comic": Kind.style, "Person A": Kind.person}
TEMPLATES = {kind.name: ["a photo of {}", "{}"] for kind in Kind}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


def judge_of(source: Path, **changes: Any) -> ClipJudge:
    settings: dict[str, Any] = dict(
        source=str(source),
        allow_download=False,
        templates=TEMPLATES,
        others={"person": ["Person B"]},
        batch_size=3,
    )
    return ClipJudge(**(settings | changes))


def opened(config: ClipJudge) -> ZeroShotJudge:
    return config.open(JudgeTask(SUBJECTS, "cpu"))


def pictures(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 36, 3), np.uint8)


@pytest.mark.parametrize("save", [save_clip, save_siglip])
def test_scores_are_those_of_the_model_itself(save: object, tmp_path: Path) -> None:
    """Embeddings, and of one template a class the logits, against the model's own forward pass."""
    folder = save(tmp_path / "model")  # type: ignore[operator]
    one = {kind.name: ["a photo of {}"] for kind in Kind}
    judge = opened(judge_of(folder, templates=one))
    images, texts = pictures(), [f"a photo of {name}" for name in judge.classes[SUBJECT]]
    encoder = VisionEncoder.load(
        "judge.source", str(folder), allow_download=False, device="cpu", batch_size=9
    )
    model = AutoModel.from_pretrained(folder).eval()
    pixels = encoder.processor(images=list(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(pixel_values=pixels, **encoder._tokens(texts))
    cosines = (output.image_embeds @ output.text_embeds.T).numpy()
    scores = judge.text_image_score(images, texts)
    np.testing.assert_allclose(scores, 100 * np.diag(cosines), atol=1e-3)
    bias = getattr(model, "logit_bias", torch.zeros(1)).item()
    wanted = (output.logits_per_image - bias).softmax(-1).numpy()
    np.testing.assert_allclose(judge.probabilities(images)[SUBJECT], wanted, atol=1e-5)


def test_batches_change_no_score(clip: Path) -> None:
    one, other = opened(judge_of(clip)), opened(judge_of(clip, batch_size=2))
    images, texts = pictures(), ["a cat", "a dog", "a cat", "art", "a ship at night"]
    np.testing.assert_allclose(
        one.text_image_score(images, texts), other.text_image_score(images, texts), atol=1e-4
    )
    np.testing.assert_allclose(one.features(images), other.features(images), atol=1e-6)


def test_a_text_longer_than_the_model_reads_is_cut(clip: Path) -> None:
    long = "a photo of " + "a cat and " * 60
    scores = opened(judge_of(clip)).text_image_score(pictures(2), [long, "a cat"])
    assert np.isfinite(scores).all()


def test_a_subject_is_sought_among_those_of_its_kind() -> None:
    kinds = [Kind.object, Kind.object, Kind.style, Kind.person]
    found = np.array([[0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.6, 0.1]])
    among = among_kinds(found, kinds, np.array([0, 2, -1]))
    np.testing.assert_allclose(among[0], [1 / 3, 2 / 3, 0, 0])
    np.testing.assert_allclose(among[1], [0, 0, 1, 0])
    np.testing.assert_allclose(among[2], found[2])


def test_an_evaluation_is_measured_among_the_runs_subjects(clip: Path) -> None:
    suite = random_suite(42)
    before, after = (each[:42] for each in random_pictures())
    judging = RunJudge(judge_of(clip), SUBJECTS)
    measured, failures = judging.judge_pictures(
        suite, before, after, Choice([], 0.0, None), device="cpu", specificity="preserved"
    )
    assert not failures
    found = measure_pictures(measured, ["accuracy", "text_image", "distances"])
    subjects = found.scored.scores[1].subject
    for prompt, subject in zip(suite, subjects, strict=True):
        kind = SUBJECTS.get(prompt.expected)
        if kind is not None:
            assert judging.config.candidates(SUBJECTS)[subject] is kind  # type: ignore[attr-defined]
    metrics = found.metrics
    assert metrics["styles"]["accuracy"]["value"] == 1.0  # comic is the only style
    assert metrics["distances"]["features"] == "judge"
    assert "the judge does not know 'Person D' (preserved)" in metrics["missing"]


def test_what_it_is_decides_its_key(clip: Path, tmp_path: Path) -> None:
    def key(config: ClipJudge, subjects: dict = SUBJECTS) -> object:
        return RunJudge(config, subjects).identity

    first = key(judge_of(clip))
    assert first == key(judge_of(clip, batch_size=7, allow_download=True))
    other = save_clip(tmp_path / "clip")
    assert first != key(judge_of(other))
    assert first != key(judge_of(clip, templates=TEMPLATES | {"style": ["in the style of {}"]}))
    assert first != key(judge_of(clip, others={}))
    assert first != key(judge_of(clip), {"cat": Kind.object})


def test_a_model_that_reads_no_text_fails_by_name(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="ViTModel, which reads no text"):
        opened(judge_of(save_vit(tmp_path / "vit")))


def test_without_a_subject_there_is_nothing_to_choose(clip: Path) -> None:
    with pytest.raises(JudgeError, match="name some in judge.others"):
        judge_of(clip, others={}).open(JudgeTask({}, "auto"))
    judge = judge_of(clip).open(JudgeTask({}, "auto"))
    assert isinstance(judge, Classifier) and judge.classes == {SUBJECT: ("Person B",)}


def test_a_damaged_folder_fails_by_name(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((clip / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(JudgeError, match="judge.source = .* can't be loaded"):
        opened(judge_of(tmp_path))


def test_what_is_missing_is_refused_before_a_run(clip: Path, tmp_path: Path) -> None:
    people = ("concepts=custom", "concepts.names=[Adam Driver]", "judge=clip")
    for source, said in (
        (tmp_path / "none", "is neither a folder nor a hub id"),
        ("openai/clip-vit-large-patch14", "downloads are off"),
    ):
        with pytest.raises(ValueError, match=f"judge.source = {source} .*{said}"):
            composed(*people, f"judge.source={source}")
    alone = ("kept=none", "preservation=none", f"judge.source={clip}")
    with pytest.raises(ValueError, match="'Adam Driver' is the only person: .*judge.others.person"):
        composed(*people, *alone)
    config = composed(*people, *alone, "judge.others.person=[Amy Adams]")
    assert config.judge.name == "clip"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("judge.templates.person=[]", "judge.templates.person = .*at least one sentence"),
        ("judge.templates.person=['a photo']", "once in each"),
        ("+judge.templates.persn=['a {}']", "the kind 'persn': kinds are person"),
    ],
)
def test_templates_that_are_none_are_refused(clip: Path, change: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        composed("judge=clip", f"judge.source={clip}", change)
