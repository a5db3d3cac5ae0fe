"""Image files of the user's own: what belongs to a concept, and what is wrong with it, by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.data.files import (
    UserImage,
    concept_files,
    listed_files,
)
from mace_exp.data.folders import mask_folder_of
from mace_exp.data.images.base import ImagesConfig
from mace_exp.data.images.folder import Crop, FolderImages, masked_files
from mace_exp.data.images.generated import GeneratedImages, generated_masks
from mace_exp.data.masks.precomputed import PrecomputedMasks
from mace_exp.data.pixel_modes import image_size, read_image, read_mask
from mace_exp.data.prior_images.base import FolderPriorImages, ListedPriorImages, NoPriorImages
from tests.pictures import own_folder, save

ADAM = Concept("Adam Driver", Kind.person, "a person")
BESIDE = PrecomputedMasks(path=None)


def folder_images(path: Path, *, per_concept: int | None = None) -> FolderImages:
    return FolderImages(
        path=str(path),
        per_concept=per_concept,
        size=None,
        crop=Crop.center,
        crop_share=1.0,
        flip=False,
        seed=0,
    )


def masked(images: FolderImages, masks: PrecomputedMasks = BESIDE) -> list[UserImage]:
    return masked_files(ADAM, images.files(ADAM), masks.path)


def problems(images: ImagesConfig, masks: PrecomputedMasks, concept: Concept = ADAM) -> str:
    """What is wrong with the images of a concept, or else with their masks."""
    found = list(images.problems(concept))
    return "\n".join(found or masks.concept_problems(concept, images, (40, 48)))


@pytest.mark.parametrize("masks", ["beside", "within"])
@pytest.mark.parametrize("name", ["Adam Driver", "adam-driver"])
def test_images_and_masks_pair_by_name(tmp_path: Path, masks: str, name: str) -> None:
    own_folder(tmp_path, name, masks=masks)
    files = masked(folder_images(tmp_path))
    assert [file.image.name for file in files] == ["0.png", "1.png", "2.png"]
    for file in files:
        assert file.mask is not None and file.mask != file.image
        assert np.array_equal(read_image(file.image)[..., 0] > 127, read_mask(file.mask))


def test_masks_may_lie_elsewhere_and_have_another_suffix(tmp_path: Path) -> None:
    own_folder(tmp_path / "images", "Adam Driver", masks="none")
    inside = np.ones((40, 48), bool)
    for index in range(3):
        save(tmp_path / "masks" / "adam-driver" / f"{index}.bmp", inside)
    elsewhere = PrecomputedMasks(path=str(tmp_path / "masks"))
    files = masked(folder_images(tmp_path / "images", per_concept=2), elsewhere)
    assert [file.mask.name for file in files if file.mask] == ["0.bmp", "1.bmp"]


def test_masks_that_are_not_asked_for_are_not_needed(tmp_path: Path) -> None:
    own_folder(tmp_path, "Adam Driver", masks="none")
    files = folder_images(tmp_path).files(ADAM)
    assert [file.mask for file in files] == [None] * 3
    assert mask_folder_of(files[0].image.parent) is None


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    own_folder(tmp_path, "Adam Driver", "Amy Adams")
    images = folder_images(tmp_path)
    masks = tmp_path / "Adam Driver mask"

    def problem(images: FolderImages = images) -> str:
        return problems(images, BESIDE)

    assert problem() == ""
    assert "contains 3 images, 4 are requested" in problem(folder_images(tmp_path, per_concept=4))
    Image.new("L", (20, 10)).save(masks / "1.png")
    assert f"mask {masks / '1.png'} is 20x10 pixels, its image is 48x40" in problem()
    (masks / "1.png").write_text("no")
    assert f"image {masks / '1.png'} can't be read" in problem()
    (masks / "1.png").unlink()
    assert f"mask {masks / '1.png'} of {tmp_path / 'Adam Driver' / '1.png'} is missing" in problem()
    masks.rename(tmp_path / "gone")
    assert "'Adam Driver mask' beside it" in problem()
    (tmp_path / "Adam Driver" / "1.png").write_bytes(b"no picture")
    assert f"image {tmp_path / 'Adam Driver' / '1.png'} can't be read" in problem()
    (tmp_path / "Adam Driver").rename(tmp_path / "Adam")
    assert "no folder 'Adam Driver' with the images of this concept; found: Adam, Amy" in problem()


DRAWN = GeneratedImages(per_concept=3, seed=0)


@pytest.mark.parametrize("name", ["Adam Driver", "adam-driver"])
@pytest.mark.parametrize("digits", [1, 4])
def test_masks_of_drawn_images_pair_by_number(tmp_path: Path, name: str, digits: int) -> None:
    for index in range(4):
        save(tmp_path / name / f"{index:0{digits}d}.png", np.ones((40, 48), bool))
    files = generated_masks(ADAM, str(tmp_path), DRAWN.per_concept)
    assert [int(file.stem) for file in files] == [0, 1, 2]
    assert problems(DRAWN, PrecomputedMasks(path=str(tmp_path))) == ""


def test_what_is_wrong_with_the_masks_of_drawn_images_is_named(tmp_path: Path) -> None:
    masks = PrecomputedMasks(path=str(tmp_path))

    def problem(concept: Concept = ADAM) -> str:
        return problems(DRAWN, masks, concept)

    assert "no folder 'Adam Driver' or 'adam-driver' with the masks" in problem()
    assert problem(Concept("doodle", Kind.style, "art")) == "", "it fills the image"
    for index in range(2):
        save(tmp_path / "adam-driver" / f"{index}.png", np.ones((40, 48), bool))
    assert f"mask {tmp_path / 'adam-driver' / '0002.png'} is missing (3 are needed)" in problem()
    save(tmp_path / "adam-driver" / "2.png", np.ones((48, 48), bool))
    assert "2.png is 48x48 pixels, its image is 48x40" in problem()
    (tmp_path / "adam-driver" / "2.png").write_text("no")
    assert "2.png can't be read" in problem()
    save(tmp_path / "adam-driver" / "2.png", np.ones((40, 48), bool))
    assert problem() == ""


def test_folders_without_images_or_with_two_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="no image: .png, .jpg"):
        concept_files(tmp_path, ["cat"])
    for suffix in ("png", "jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / f"one.{suffix}")
    with pytest.raises(ValueError, match="two images named 'one'"):
        concept_files(tmp_path, ["cat"])
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        concept_files(tmp_path / "nowhere", ["cat"])


def test_prompts_may_lie_beside_the_images(tmp_path: Path) -> None:
    own_folder(tmp_path, "Adam Driver", count=2)
    file = tmp_path / "Adam Driver" / "prompts.csv"
    file.write_text('file,prompt\n1.png,"adam driver, in the park"\n0.png,Adam Driver\n')
    files = folder_images(tmp_path).files(ADAM)
    assert [each.prompt for each in files] == ["Adam Driver", "adam driver, in the park"]
    file.write_text("file,prompt\n0.png,Adam Driver\n1.png,a person\n")
    with pytest.raises(ValueError, match="'a person' does not name the concept"):
        folder_images(tmp_path).files(ADAM)
    file.write_text("file,prompt\n0.png,Adam Driver\n")
    with pytest.raises(ValueError, match=r"prompts.csv has no prompt for 1.png"):
        concept_files(tmp_path, ["Adam Driver"])
    file.write_text("file,prompt\n0.png,a\n1.png,b\n2.png,c\n")
    with pytest.raises(ValueError, match=r"prompts.csv names 2.png"):
        concept_files(tmp_path, ["Adam Driver"])
    file.write_text("name,words\n0.png,a\n")
    with pytest.raises(ValueError, match="needs the columns file, prompt"):
        concept_files(tmp_path, ["Adam Driver"])


def test_texts_may_begin_with_the_mark_of_windows(tmp_path: Path) -> None:
    """As Excel writes "CSV UTF-8", and some editors all texts."""
    own_folder(tmp_path, "cat", count=2, masks="none")
    table, images, prompts = (
        tmp_path / name for name in ("cat/prompts.csv", "images.txt", "prompts.txt")
    )
    table.write_text("file,prompt\n0.png,a cat\n1.png,the cat\n", encoding="utf-8-sig")
    images.write_text("cat/0.png\ncat/1.png\n", encoding="utf-8-sig")
    prompts.write_text("a cat\nthe cat\n", encoding="utf-8-sig")
    found = concept_files(tmp_path, ["cat"])
    assert [each.prompt for each in found] == ["a cat", "the cat"]
    assert listed_files(images, prompts) == found


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10, 0] = 255  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left goes up
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (20, 10, 3) and image_size(tmp_path / "turned.png") == (20, 10)
    assert image[:10, :, 0].all() and not image[10:].any()


def test_class_images_come_from_a_folder_or_two_lists(tmp_path: Path) -> None:
    own_folder(tmp_path, "person", count=2, masks="none")
    folder = FolderPriorImages(path=str(tmp_path / "person"), prompt="a person", weight=1.0)
    assert [(file.image.name, file.prompt) for file in folder.files()] == [
        ("0.png", "a person"),
        ("1.png", "a person"),
    ]
    (tmp_path / "images.txt").write_text("person/1.png\n\nperson/0.png\n")
    (tmp_path / "prompts.txt").write_text("a man\na woman\n")
    lists = ListedPriorImages(
        images=str(tmp_path / "images.txt"), prompts=str(tmp_path / "prompts.txt"), weight=1.0
    )
    assert [(file.image.name, file.prompt) for file in lists.files()] == [
        ("1.png", "a man"),
        ("0.png", "a woman"),
    ]
    assert NoPriorImages().files() == []


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images, prompts = tmp_path / "images.txt", tmp_path / "prompts.txt"
    images.write_text("one.png\n")
    prompts.write_text("a man\na woman\n")
    with pytest.raises(ValueError, match="lists 1 images, .* 2 prompts"):
        listed_files(images, prompts)
    prompts.write_text("a man\n")
    with pytest.raises(ValueError, match=r"one.png is missing"):
        listed_files(images, prompts)
    with pytest.raises(ValueError, match="list .*nowhere.txt can't be read"):
        listed_files(tmp_path / "nowhere.txt", prompts)


def test_the_size_is_told_by_the_head_alone(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.effect_noise((64, 48), 50).save(file)
    file.write_bytes(file.read_bytes()[:200])
    assert image_size(file) == (48, 64)
    with pytest.raises(ValueError, match="large.png can't be read"):
        read_image(file)
