"""Views: one crop and one flip for image and mask together, drawn from a seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mace_exp.data.files import UserImage
from mace_exp.data.images.folder import view_seeds
from mace_exp.data.masks.pixels import intersection_over_union
from mace_exp.data.user_images import encoded_views, read_mask_views, read_views
from mace_exp.data.views import Views
from mace_exp.models.latents import encode_images, native_size, signed
from mace_exp.models.sampling import decode
from tests.pictures import disc, own_folder, save
from tests.tiny import tiny_pipeline

RANDOM = Views(size=(32, 32), crop="random", share=0.5, flip=True)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.mark.parametrize("crop", ["center", "random", "none"])
def test_image_and_mask_move_together(crop: str) -> None:
    """A picture that shows its own mask shows the view of that mask: off by the edge alone."""
    inside = disc(90, 120, at=(35, 75), radius=25)
    picture = np.repeat(inside[..., None], 3, axis=2).astype(np.uint8) * 255
    views = Views(size=(48, 64), crop=crop, share=0.5, flip=True)
    seen = []
    for seed in range(24):
        view = views.draw((90, 120), seed)
        image, mask = view.image(picture), view.mask(inside)
        assert image.shape == (48, 64, 3) and mask.shape == (48, 64)
        assert intersection_over_union(image[..., 0] > 127, mask) > 0.9
        seen.append(mask.tobytes())
    assert len(set(seen)) == {"center": 2, "none": 2, "random": 24}[crop]


def test_pixels_are_not_touched_where_nothing_is_to_be_done() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    view = Views(size=(32, 32)).draw((32, 32), 0)
    assert np.array_equal(view.image(picture), picture)
    mask = picture[..., 0] > 127
    assert np.array_equal(view.mask(mask), mask)


def test_a_flip_leaves_the_crop_as_it_was() -> None:
    plain = Views(size=(32, 32), crop="random", share=0.5)
    mirrored = [RANDOM.draw((60, 80), seed) for seed in range(40)]
    assert [view.box for view in mirrored] == [plain.draw((60, 80), s).box for s in range(40)]
    assert 10 < sum(view.flip for view in mirrored) < 30


def test_boxes_have_the_right_shape_and_stay_inside() -> None:
    for image in ((40, 48), (48, 40), (31, 200)):
        for seed in range(50):
            top, left, height, width = RANDOM.draw(image, seed).box
            assert 0 <= top <= image[0] - height and 0 <= left <= image[1] - width
            assert height == width and height >= 0.5 * min(image) - 1
    assert Views(size=(16, 32)).draw((64, 64), 0).box == (16, 0, 32, 64)
    assert Views(size=(16, 32), crop="none").draw((64, 64), 0).box == (0, 0, 64, 64)


def files_in(root: Path) -> list[UserImage]:
    own_folder(root, "cat")
    return [
        UserImage(root / "cat" / f"{i}.png", None, root / "cat mask" / f"{i}.png") for i in range(3)
    ]


def test_files_are_read_in_the_views_of_their_seeds(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    seeds = view_seeds(0, "cat", files)
    images, masks = read_views(files, seeds, RANDOM), read_mask_views(files, seeds, RANDOM)
    assert images.shape == (3, 32, 32, 3) and masks.masks.shape == (3, 32, 32)
    assert ((images[..., 0] > 127) == masks.masks).mean() > 0.98
    assert np.array_equal(images, read_views(files, seeds, RANDOM))
    assert not np.array_equal(images, read_views(files, view_seeds(1, "cat", files), RANDOM))


def test_a_further_image_changes_no_other_view(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    assert view_seeds(0, "cat", files)[1:] == view_seeds(0, "cat", files[1:])


def test_masks_that_are_wrong_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = files_in(tmp_path)
    empty = tmp_path / "cat mask" / "1.png"
    save(empty, np.zeros((40, 48), bool))
    found = read_mask_views(files, [0, 0, 0], RANDOM)
    assert found.fallbacks == 1 and found.masks[1].all()
    assert f"the mask of {empty} is empty" in caplog.text
    save(empty, np.zeros((40, 40), bool))
    with pytest.raises(ValueError, match=r"1.png is 40x40 pixels, its image is 48x40"):
        read_mask_views(files, [0, 0, 0], RANDOM)
    empty.unlink()
    with pytest.raises(ValueError, match=r"1.png is missing"):
        read_mask_views(files, [0, 0, 0], RANDOM)


def test_latents_are_those_of_the_autoencoder(pipeline) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    images = signed(pixels)
    assert images.shape == (11, 3, 32, 32) and images.min() >= -1 and images.max() <= 1
    assert signed(np.array([[[0, 255, 51]]], np.uint8)).flatten().tolist() == pytest.approx(
        [-1, 1, -0.6]
    )
    latents = encode_images(pipeline, pixels)
    with torch.no_grad():
        expected = pipeline.vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(latents, pipeline.vae.config.scaling_factor * expected)
    assert native_size(pipeline) == (32, 32) == decode(pipeline, latents).shape[1:3]


def test_pixels_become_numbers_a_batch_at_a_time(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes a number, of every image at once, would take gigabytes."""
    turned: list[int] = []
    monkeypatch.setattr(
        "mace_exp.models.latents.signed", lambda part: turned.append(len(part)) or signed(part)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    latents = encode_images(pipeline, pixels)
    assert turned == [8, 8, 3]
    torch.testing.assert_close(latents[17:], encode_images(pipeline, pixels[17:]))


def test_what_the_autoencoder_cannot_read_is_refused(pipeline) -> None:
    for wrong in (np.zeros((1, 32, 32, 3)), np.zeros((1, 3, 32, 32), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \[n, H, W, 3\]"):
            encode_images(pipeline, wrong)
    with pytest.raises(ValueError, match="images of 30x32 pixels: .* multiples of 4"):
        encode_images(pipeline, np.zeros((1, 32, 30, 3), np.uint8))


def test_encoded_views_hold_their_prompts_and_seeds(pipeline, tmp_path: Path) -> None:
    files = files_in(tmp_path)
    made = encoded_views(pipeline, files, ["a", "b", "c"], [4, 5, 6], RANDOM)
    assert (made.prompts, made.seeds) == (["a", "b", "c"], [4, 5, 6])
    torch.testing.assert_close(made.latents, encode_images(pipeline, made.images))
