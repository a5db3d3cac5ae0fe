"""A model's safety checker blackens what it finds fault with, but not what has to be trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mace_exp import erase
from mace_exp.data.training_images import draw_images
from mace_exp.models.sampling import SamplingSettings, decode, sample
from tests.tiny import tiny_pipeline, with_strict_checker
from tests.whole_run import Run, read

SETTINGS = SamplingSettings(steps=1, guidance=1, scheduler="dpm", batch_size=2)
SMALL = (
    *("lora=mini", "sampling=mini", "sampling.steps=1", "images.per_concept=1", "prompts.count=2"),
    *("lora.steps=1", "lora.batch_size=1", "masks=none", "preservation=none", "save=pipeline"),
    *("evaluation.images_per_part=1", "evaluation.attention_maps=0", "evaluation.parts=[erased]"),
    "tracking=none",
)
PERSON, EXPLICIT = ("concepts=[Adam Driver]",), ("concepts=[naked]", "concepts.kind=explicit")


@pytest.fixture
def arguments(checked_folder: Path, tmp_path: Path) -> list[str]:
    """Of the fixture `run`."""
    where = ["model=path", f"model.source={checked_folder}", f"cache_dir={tmp_path / 'cache'}"]
    return [*where, *SMALL]


def log_of(folder: Path) -> str:
    """What was logged; a run that logs nothing has no file."""
    file = folder / "run.log"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def black(folder: Path) -> set[bool]:
    """Whether the pictures of a folder are black, each."""
    files = sorted(folder.rglob("*.png"))
    assert files, folder
    return {not np.asarray(Image.open(file)).any() for file in files}


def test_pictures_that_are_flagged_are_black_and_unchecked_ones_are_as_without() -> None:
    plain, checked = tiny_pipeline(), with_strict_checker(tiny_pipeline())
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert decode(plain, latents).any() and not decode(checked, latents).any()
    assert np.array_equal(decode(checked, latents, checked=False), decode(plain, latents))
    assert not sample(checked, ["a cat"], [1], SETTINGS).any()
    unchecked = draw_images(checked, ["a cat"], [1], SETTINGS, checked=False)
    assert np.array_equal(unchecked.images, draw_images(plain, ["a cat"], [1], SETTINGS).images)
    assert checked.safety_checker is not None


def test_a_run_of_explicit_content_sees_its_training_images_and_nothing_else(
    run: Run, tmp_path: Path
) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    folder = run("explicit", *EXPLICIT)
    assert "safety checker is off while training images are drawn" in log_of(folder)
    assert black(tmp_path / "cache" / "images") == {False}
    assert black(folder / "samples") == {True}
    for file in ("summary.json", "erased.json"):
        assert "off while training images were drawn" in read(folder / file)["safety_checker"], file
    erased: Any = StableDiffusionPipeline.from_pretrained(folder / "erased")
    assert erased.safety_checker is not None
    assert erased("a cat", num_inference_steps=1).nsfw_content_detected == [True]


def test_other_training_images_are_checked(run: Run, tmp_path: Path) -> None:
    folder = run("person", *PERSON)
    assert "safety checker" not in log_of(folder)
    assert black(tmp_path / "cache" / "images") == {True} == black(folder / "samples")
    assert read(folder / "summary.json")["safety_checker"] == "kept"
    both = run("both", "concepts=[Adam Driver,naked]", "concepts.kinds={naked: explicit}")
    assert read(both / "summary.json")["made"]["images"] == 2, "the black one is not reused"
    assert black(tmp_path / "cache" / "images") == {True, False}


def test_switched_off_by_name_it_is_neither_used_nor_saved_and_nothing_black_is_reused(
    run: Run,
) -> None:
    run("on", *PERSON)
    off = run("off", *PERSON, "model.safety_checker=false")
    made = read(off / "summary.json")
    assert made["safety_checker"] == "none" and {"images", "samples"} <= made["made"].keys()
    assert black(off / "samples") == {False}
    assert read(off / "erased" / "model_index.json")["safety_checker"] == [None, None]


def test_from_python_the_pipeline_keeps_its_checker(tmp_path: Path) -> None:
    pipeline: Any = with_strict_checker(tiny_pipeline())
    settings = {"sampling.steps": 1, "images.per_concept": 1, "prompts.count": 2, "masks": "none"}
    erase(
        pipeline,
        "naked",
        kind="explicit",
        steps=1,
        settings=settings | {"preservation": "none"},
        folder=tmp_path,
        progress=False,
    )
    assert pipeline.safety_checker is not None and pipeline.config.safety_checker[0] is not None
    assert black(tmp_path / "cache" / "images") == {False}
    assert "off while" in read(tmp_path / "erased.json")["safety_checker"]
