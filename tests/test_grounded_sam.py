"""Masks by words: boxes, their union, fall-backs, and models that are not there."""

import gc
import json
import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from mace_exp.data.masks.grounding import GroundedSam, detector_text
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from tests.composing import composed
from tests.tiny_detectors import save_detector, save_segmenter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("helpers")
    return {
        "detector": save_detector(root / "detector"),
        "segmenter": save_segmenter(root / "segmenter"),
    }


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 48, 40, 3), dtype=np.uint8)


@pytest.fixture
def grounded(folders: dict[str, Path]) -> Callable[..., GroundedSam]:
    def build(*, box_threshold: float = 0.1, mask_threshold: float = 0.0) -> GroundedSam:
        return GroundedSam(
            detector=str(folders["detector"]),
            segmenter=str(folders["segmenter"]),
            allow_download=False,
            device=torch.device("cpu"),
            box_threshold=box_threshold,
            mask_threshold=mask_threshold,
        )

    return build


def test_words_are_written_as_the_detector_reads_them() -> None:
    assert detector_text(["person", "face"]) == "person. face."
    assert detector_text(["Dr. Seuss  Hat"]) == "dr seuss hat."


def test_boxes_are_those_of_transformers_own_reading(
    grounded: Callable[..., GroundedSam], folders: dict[str, Path], images: np.ndarray
) -> None:
    processor: Any = AutoProcessor.from_pretrained(folders["detector"])
    model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(folders["detector"]).eval()
    picture = Image.fromarray(images[0])
    inputs = processor(images=picture, text="person. face.", return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    read = processor.post_process_grounded_object_detection(
        output, threshold=0.1, target_sizes=[(48, 40)]
    )
    boxes = grounded().boxes(images[0], ["person", "face"])
    limit = torch.tensor([40.0, 48, 40, 48])
    expected = read[0]["boxes"].clamp_min(0).minimum(limit)
    assert 0 < len(boxes) <= 5
    torch.testing.assert_close(boxes, expected)


def test_a_higher_threshold_leaves_fewer_boxes(
    grounded: Callable[..., GroundedSam], images: np.ndarray
) -> None:
    counts = [len(grounded(box_threshold=at).boxes(images[0], ["cat"])) for at in (0.0, 0.5, 1.0)]
    assert counts[0] == 5 and counts[0] >= counts[1] and counts[2] == 0


def test_the_masks_of_all_boxes_are_united(
    grounded: Callable[..., GroundedSam], images: np.ndarray
) -> None:
    both = torch.tensor([[2.0, 3, 20, 30], [15, 10, 39, 47]])
    finder = grounded()
    united = finder.union(images[0], both)
    apart = [finder.union(images[0], box[None]) for box in both]
    assert united.shape == (48, 40) and united.dtype == bool
    assert np.array_equal(united, apart[0] | apart[1])
    assert all(0 < each.mean() < 1 for each in apart)


def test_nothing_found_and_nothing_cut_out_are_whole_images_with_a_warning(
    grounded: Callable[..., GroundedSam], images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["images/0000.png", "images/0001.png", "images/0002.png"]
    with caplog.at_level(logging.WARNING):
        nothing = grounded(box_threshold=1.0).masks(images, ["cat"], names)
    assert nothing.fallbacks == 3 and nothing.masks.all()
    assert "images/0002.png, which shows no cat, is empty" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        empty = grounded(mask_threshold=1e9).masks(images, ["cat"], names)
    assert empty.fallbacks == 3
    assert "the mask of images/0000.png is empty" in caplog.text


def test_models_are_loaded_once_with_the_first_image_and_go_with_the_finder(
    grounded: Callable[..., GroundedSam], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = GroundedSam._loaded

    def counted(self: GroundedSam, *arguments: Any) -> Any:
        helper = load(self, *arguments)
        loaded.append(weakref.ref(helper.model))
        return helper

    monkeypatch.setattr(GroundedSam, "_loaded", counted)
    finder = grounded()
    assert not loaded
    finder.masks(images, ["cat"], ["a", "b", "c"])
    finder.masks(images, ["person"], ["a", "b", "c"])
    assert len(loaded) == 2
    del finder
    gc.collect()
    assert [each() for each in loaded] == [None, None]


def test_folders_that_do_not_fit_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a model of the type 'sam', not 'grounding-dino'"):
        check_auxiliary(str(folders["segmenter"]), model_type="grounding-dino")
    with pytest.raises(ValueError, match="config.json is missing"):
        check_auxiliary(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is missing|config.json"):
        check_auxiliary(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {}}))
    with pytest.raises(ValueError, match="auto_map"):
        check_auxiliary(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no .safetensors weights"):
        check_auxiliary(str(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        check_auxiliary("/nowhere/at/all")
    check_auxiliary("someone/some-model", allow_download=True)


def test_a_changed_folder_is_another_model(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["segmenter"], tmp_path / "copy")
    before = auxiliary_identity(str(copy))
    assert auxiliary_identity(str(copy)) == before
    (copy / "model.safetensors").write_bytes(b"other")
    assert auxiliary_identity(str(copy)) != before
    assert auxiliary_identity("someone/some-model") == "someone/some-model"


def test_an_unreadable_model_is_named(
    grounded: Callable[..., GroundedSam], images: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "grounding-dino"}))
    finder = grounded()
    finder.detector = str(tmp_path)
    with pytest.raises(ValueError, match="masks.detector = .* can't be loaded"):
        finder.boxes(images[0], ["cat"])


def test_models_that_are_not_here_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="(?s)masks.detector = .*downloads are off.*segmenter"):
        composed("masks=grounded_sam")
    assert composed("masks=grounded_sam", "masks.allow_download=true").masks
    with pytest.raises(ValueError, match=r"masks.people = .* as in masks\.people="):
        composed("masks=grounded_sam", "masks.allow_download=true", "masks.people=[]")
    with pytest.raises(ValueError, match=r"masks.box_threshold = 1.5 is out of range"):
        composed("masks=grounded_sam", "masks.allow_download=true", "masks.box_threshold=1.5")
    with pytest.raises(ValueError, match=f"masks.segmenter = {tmp_path} .*config.json"):
        composed("masks=grounded_sam", "masks.detector=a/b", f"masks.segmenter={tmp_path}")
