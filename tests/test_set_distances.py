"""Distances between sets of pictures: closed forms, intervals, encoders and real pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mace_exp.evaluation.comparison import Comparison, DistancesConfig
from mace_exp.evaluation.evaluate import Evaluation, measure_pictures
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics import COMPARING, set_distances
from mace_exp.evaluation.metrics.set_distances import (
    cmmd_distance,
    estimate,
    frechet_distance,
    kernel_distance,
)
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.recognisers.vision import VisionEncoder, perceptual_distance
from mace_exp.evaluation.schema import Choice
from tests.composing import composed
from tests.random_evaluation import RandomJudge
from tests.tiny_vision import save_clip, save_dino

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (2, 9, 24, 20, 3), np.uint8)
SUITE = [
    EvaluationPrompt(part, name, f"{name} {i}", i, name)
    for part, names in (("erased", "ab"), ("preserved", "cd"))
    for name in names
    for i in range(2)
] + [EvaluationPrompt("objects", "e", "e", 9, "e")]


def test_frechet_distance_of_many_pictures_is_that_of_their_moments() -> None:
    a, b = RNG.normal(size=(300, 4)), RNG.normal(size=(200, 4)) * [1, 2, 3, 0.5] + 1
    values = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0)
    direct = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T))
    assert frechet_distance(a, b) == pytest.approx(direct - 2 * np.sqrt(values).sum(), rel=1e-9)


@pytest.mark.parametrize("block", [4, 100])
def test_discrepancies_are_sums_over_all_pairs(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(set_distances, "BLOCK", block)
    a, b = RNG.normal(size=(9, 3)), RNG.normal(size=(7, 3)) + 1

    def direct(kernel: Any, a: np.ndarray, b: np.ndarray) -> float:
        within = [
            np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
            for s in (a, b)
        ]
        return float(sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b]))

    cubic = direct(lambda x, y: (x @ y / 3 + 1) ** 3, a, b)
    assert kernel_distance(a, b) == pytest.approx(cubic, rel=1e-9)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b)]
    gauss = direct(lambda x, y: np.exp(-((x - y) ** 2).sum() / 200), *unit)
    assert cmmd_distance(a, b) == pytest.approx(1000 * gauss, rel=1e-6)
    for distance in (kernel_distance, cmmd_distance):
        assert distance(a, a, paired=True) == pytest.approx(0, abs=1e-9) != distance(a, a)
    assert cmmd_distance(3 * a, b) == pytest.approx(1000 * gauss, rel=1e-6), "length is nothing"


def test_pairs_that_are_alike_do_not_bias_the_distance() -> None:
    """Twenty pictures before and after an edit that moves each, but not what they are together."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(200):
        a = RNG.normal(size=(20, 4))
        b = 0.9 * a + np.sqrt(1 - 0.81) * RNG.normal(size=(20, 4))
        for paired in found:
            found[paired].append(kernel_distance(a, b, paired=paired))
    low, exact = (np.mean(found[paired]) for paired in (False, True))
    assert abs(exact) < 4 * np.std(found[True]) / np.sqrt(200) < abs(low) and low < 0


def test_cmmd_of_sets_with_one_mean_is_about_zero() -> None:
    same = [cmmd_distance(*RNG.normal(size=(2, 20, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, cmmd_distance])
def test_the_interval_covers_the_distance_of_this_many_pictures(distance: Any) -> None:
    """Of 20 samples of 12 concepts, at 95 %: fewer than 15 hits have a probability of 0.0003."""
    rng = np.random.default_rng(1)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        concepts = np.repeat(rng.normal(size=(12, 3)), 2, axis=0)
        first = concepts + 0.5 * rng.normal(size=(24, 3))
        return first, concepts + 0.5 * rng.normal(size=(24, 3)) + 1

    expected = np.mean([distance(*sample()) for _ in range(200)])
    clusters = [i // 2 for i in range(24)]
    found = [estimate(distance, *sample(), clusters, paired=True) for _ in range(20)]
    assert sum(each["low"] <= expected <= each["high"] for each in found) >= 15
    assert all(each["low"] <= each["value"] <= each["high"] for each in found)


def test_one_concept_has_no_interval_and_neither_have_too_many_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = RNG.normal(size=(2, 6, 3))
    assert set(estimate(frechet_distance, a, b, ["x"] * 6, paired=True)) == {"value", "n"}
    assert "low" in estimate(frechet_distance, a, b, range(6), paired=True)
    monkeypatch.setattr(set_distances, "MAX_PICTURES", 5)
    assert set(estimate(frechet_distance, a, b, range(6), paired=True)) == {"value", "n"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    for i in range(5):
        size = (30 + i, 40)
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def settings(encoder: Path | None = None, real: Path | None = None) -> DistancesConfig:
    return DistancesConfig(
        encoder=encoder and str(encoder),
        allow_download=False,
        real_images=real and str(real),
        batch_size=4,
    )


def measured(config: DistancesConfig, *names: str, judge: Any = None) -> Evaluation:
    pictures = Measured(SUITE, *PICTURES, judge=judge, comparison=Comparison(config, "cpu"))
    return measure_pictures(pictures, names or sorted(COMPARING))


def test_parts_are_compared_with_the_original_s_and_with_real_pictures(
    clip: Path, real: Path
) -> None:
    found = measured(settings(clip, real)).metrics
    encoder = VisionEncoder.load("key", str(clip), allow_download=False, device="cpu", batch_size=2)
    before, after = (encoder.embeddings(each[:4]) for each in PICTURES)
    others = encoder.embeddings([np.asarray(Image.open(f)) for f in sorted(real.iterdir())])
    assert found["erased"]["fid"]["value"] == pytest.approx(frechet_distance(before, after))
    for name, distance in (("fid", frechet_distance), ("cmmd", cmmd_distance)):
        of_real = found["erased"][f"{name}_real"]
        assert of_real["value"] == pytest.approx(distance(others, after), rel=1e-4)
        assert of_real["original"] == pytest.approx(distance(others, before), rel=1e-4)
        assert (of_real["n"], of_real["n_real"]) == (4, 5)
        assert of_real["low"] <= of_real["value"] <= of_real["high"]
        assert of_real["features"] == str(clip)
    assert set(found["objects"]) == {"perceptual"}
    assert found["missing"] == [
        "the part objects has one picture: a distance between sets needs two"
    ]


@pytest.mark.parametrize(("judge", "name"), [(RandomJudge(), "judge"), (None, "pixels")])
def test_without_an_encoder_the_judge_s_features_are_taken(
    judge: Any, name: str, real: Path
) -> None:
    found = measured(settings(None, real), judge=judge).metrics
    assert {each["features"] for each in found["erased"].values()} == {name}
    alone = measured(settings(), "fid", "part_distances", judge=judge).metrics
    assert alone["erased"]["fid"]["value"] == alone["erased"]["distances"]["frechet"]
    assert found["erased"]["fid"] == alone["erased"]["fid"] and "fid_real" not in alone["erased"]


def test_an_encoder_that_fails_leaves_the_rest_measured(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").write_bytes(b"?")
    assert not list(settings(tmp_path).problems()), "only its tensors are damaged"
    found = measured(settings(tmp_path), "fid", "cmmd", "perceptual", "pixel_change").metrics
    assert found["erased"].keys() == {"pixel_change"}
    [said] = found["missing"]
    assert said.startswith(f"evaluation.distances.encoder = {tmp_path} can't be loaded")


def test_a_real_picture_that_is_truncated_leaves_the_rest_measured(real: Path) -> None:
    whole = (real / "2.png").read_bytes()
    (real / "2.png").write_bytes(whole[: len(whole) // 2])
    [said] = settings(None, real).problems()
    assert "2.png can't be read" in said, "before a run; the file may also be cut while it runs"
    found = measured(settings(None, real), "kid", "perceptual").metrics
    assert "perceptual" in found["erased"] and "kid" not in found["erased"]
    assert "2.png can't be read" in found["missing"][0]


@pytest.mark.parametrize("save", [save_clip, save_dino])
def test_a_picture_is_at_no_distance_from_itself_and_nearer_to_one_alike(
    save: Any, tmp_path: Path
) -> None:
    encoder = VisionEncoder.load(
        "key", str(save(tmp_path)), allow_download=False, device="cpu", batch_size=2
    )
    picture = np.linspace(0, 200, 40 * 40 * 3).reshape(1, 40, 40, 3).astype(np.uint8)
    other = RNG.integers(0, 256, picture.shape, np.uint8)
    assert encoder.distances(picture, picture)[0] == pytest.approx(0, abs=1e-6)
    near, far = (encoder.distances(picture, each)[0] for each in (picture + 3, other))
    assert 0 < near < far
    assert len(encoder.embeddings([picture[0], other[0, :30]])) == 2, "of any size"


def test_perceptual_distance_is_the_sum_over_layers_of_unit_vectors() -> None:
    a, b = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    one = perceptual_distance([a[0]], [b[0]])
    unit = [each[0] / each[0].norm(dim=-1, keepdim=True) for each in (a, b)]
    assert torch.allclose(one, (unit[0] - unit[1]).square().sum(-1).mean(1))
    assert torch.allclose(perceptual_distance([a[0], 7 * a[0]], [b[0], b[0]]), 2 * one)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("encoder=DIR", "evaluation.distances.encoder = .* is not a transformers model"),
        ("encoder=some/model", "not in the hub's local cache, and downloads are off"),
        ("real_images=DIR", "evaluation.distances.real_images = .* contains no image"),
        ("real_images=no", "evaluation.distances.real_images = no: no is not a folder"),
        ("batch_size=0", "evaluation.distances.batch_size = 0 is out of range"),
    ],
)
def test_what_is_not_there_is_refused_before_a_run(
    tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        composed(f"evaluation.distances.{given.replace('DIR', str(tmp_path))}")


def test_one_real_picture_is_refused_before_a_run(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    [said] = settings(None, tmp_path).problems()
    assert "has one picture: two are needed" in said


def test_keys_change_with_what_is_compared_if_anything_is(clip: Path, real: Path) -> None:
    def inputs(config: DistancesConfig, *names: str) -> dict[str, Any]:
        return Choice(names, 0.0, config).inputs()

    plain = inputs(settings(), "fid")
    assert plain == {"metrics": ["fid"], "threshold": 0.0}
    assert inputs(settings(clip), "fid") != plain != inputs(settings(None, real), "fid")
    assert inputs(settings(clip, real), "accuracy") == inputs(settings(), "accuracy")


def test_frechet_distance_of_shifted_and_scaled_normals():
    x = np.random.default_rng(0).normal(size=(400, 5))
    x = np.linalg.svd(x - x.mean(0), full_matrices=False)[0] * np.sqrt(399)  # covariance I exactly
    assert frechet_distance(x, x + 3) == pytest.approx(5 * 9)
    assert frechet_distance(x, 2 * x) == pytest.approx(5)  # tr(I + 4 I - 2 * 2 I)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_holds_with_fewer_pictures_than_features():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 20)), rng.normal(size=(9, 20)) + 1
    values = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0)
    direct = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T))
    assert frechet_distance(a, b) == pytest.approx(direct - 2 * np.sqrt(values).sum(), rel=1e-6)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(2)
    same = [kernel_distance(*rng.normal(size=(2, 20, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(300)
    assert kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)) + 2) > 1


def test_distances_refuse_what_they_cannot_compare():
    for function in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="at least two rows"):
            function(np.zeros((1, 3)), np.zeros((4, 3)))
