"""Training images: drawing, files, latents, seeds."""

import numpy as np
import pytest
import torch
from PIL import Image

from mace_exp.data.images.generated import image_seeds
from mace_exp.data.pixel_modes import read_image
from mace_exp.data.training_images import (
    TrainingImages,
    draw_images,
    load_images,
    save_images,
    stack_images,
)
from mace_exp.models.sampling import SamplingSettings
from mace_exp.utils.files import save_png
from mace_exp.utils.seeding import derive, generator
from tests.tiny import tiny_pipeline

SETTINGS = SamplingSettings(steps=2, guidance=3.0, scheduler="dpm", batch_size=2)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def drawn(pipeline) -> TrainingImages:
    prompts = ["adam in the park", 'a "quoted", odd\nprompt', "a cat"]
    return draw_images(pipeline, prompts, image_seeds(0, "adam", 3), SETTINGS)


def test_saved_images_come_back_the_same(drawn, tmp_path):
    save_images(drawn, tmp_path / "adam")
    again = load_images(tmp_path / "adam")
    assert again.prompts == drawn.prompts and again.seeds == drawn.seeds and len(again) == 3
    assert np.array_equal(again.images, drawn.images) and torch.equal(again.latents, drawn.latents)
    save_images(drawn, tmp_path / "adam")
    assert [path.name for path in tmp_path.iterdir()] == ["adam"]


def test_pictures_are_packed_quickly(tmp_path):
    picture = np.add.outer(np.arange(96), np.arange(96))[..., None].repeat(3, 2).astype(np.uint8)
    save_png(tmp_path / "saved.png", picture)
    assert np.array_equal(read_image(tmp_path / "saved.png"), picture)
    for name, level in (("quick", 1), ("usual", 6)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png", compress_level=level)
    saved, quick, usual = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("saved", "quick", "usual")
    )
    assert saved == quick != usual


def test_what_is_missing_or_broken_is_named(drawn, tmp_path):
    folder = tmp_path / "adam"
    with pytest.raises(ValueError, match=r"prompts.csv can't be read"):
        load_images(folder)
    save_images(drawn, folder)
    (folder / "0001.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"0001.png can't be read"):
        load_images(folder)
    (folder / "0001.png").unlink()
    with pytest.raises(ValueError, match=r"0001.png is missing"):
        load_images(folder)
    Image.new("RGB", (16, 24)).save(folder / "0001.png")
    with pytest.raises(ValueError, match=r"0001.png is 16x24 pixels, .*0000.png is 32x32"):
        load_images(folder)
    save_images(drawn, folder)
    (folder / "latents.safetensors").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"latents.safetensors can't be read"):
        load_images(folder)
    with pytest.raises(ValueError, match="no images"):
        stack_images([])


def test_truncated_image_is_named(drawn, tmp_path):
    save_images(drawn, tmp_path / "adam")
    file = tmp_path / "adam" / "0000.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"0000.png can't be read"):
        load_images(tmp_path / "adam")


def test_numbers_must_agree(drawn):
    with pytest.raises(ValueError, match="differ in number"):
        TrainingImages(drawn.prompts, drawn.seeds[:1], drawn.images, drawn.latents)


def test_seeds_depend_on_each_part_of_the_scope():
    seeds = image_seeds(0, "adam", 50) + image_seeds(0, "eve", 50) + image_seeds(1, "adam", 50)
    assert len(set(seeds)) == 150 and all(0 <= seed < 2**32 for seed in seeds)
    assert image_seeds(0, "adam", 3) == image_seeds(0, "adam", 50)[:3]
    assert derive(0, "a", "b") != derive(0, "ab") and derive(0, 1) != derive(0, "1")
    assert derive(0, "lora") == derive(0, "lora") and 0 <= derive(0) < 2**63
    first, second = (torch.randn(3, generator=generator(5, "x")) for _ in range(2))
    assert torch.equal(first, second)
