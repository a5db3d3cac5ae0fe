"""Image files of every mode: an image and a mask are what the file shows."""

import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mace_exp.data.masks.pixels import load_masks
from mace_exp.data.pixel_modes import (
    image_digest,
    image_size,
    mask_digest,
    read_image,
    read_mask,
)

RAMP = np.linspace(0, 1, 16)[None].repeat(8, axis=0)
INSIDE = np.zeros((8, 16), bool)
INSIDE[2:6, 3:9] = True
RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (255, 255, 255), (0, 0, 0)


def saved(path: Path, pixels: Any, mode: str | None = None, **more: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **more)
    return path


def palette(colours: list[tuple[int, int, int]], numbers: np.ndarray) -> Image.Image:
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    image.putpalette([level for colour in colours for level in colour])
    return image


def with_alpha(colour: tuple[int, int, int], alpha: np.ndarray) -> Image.Image:
    image = Image.new("RGB", alpha.shape[::-1], colour)
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


def deep_images() -> dict[str, Image.Image]:
    """A ramp from black to white in all modes of more than eight bits."""
    sixteen = np.round(RAMP * 65535)
    big = Image.frombytes("I;16B", (16, 8), sixteen.astype(">u2").tobytes())
    return {
        "I;16.png": Image.fromarray(sixteen.astype(np.uint16)),
        "I;16B.tiff": big,
        "I.tiff": Image.fromarray(sixteen.astype(np.int32)),
        "I-255.tiff": Image.fromarray(np.round(RAMP * 255).astype(np.int32)),
        "F.tiff": Image.fromarray(RAMP.astype(np.float32)),
        "F-255.tiff": Image.fromarray((RAMP * 255).astype(np.float32)),
        "F-65535.tiff": Image.fromarray((RAMP * 65535).astype(np.float32)),
    }


@pytest.mark.parametrize("name", [*deep_images()])
def test_deep_grey_is_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path / name, deep_images()[name])
    image = read_image(file)
    assert image.shape == (8, 16, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[..., 1], RAMP * 255, atol=1)
    assert np.array_equal(read_mask(file), RAMP > 0.5)


@pytest.mark.parametrize("wrong", [-1.0, 70000.0, np.nan])
def test_numbers_that_are_no_grey_are_refused(tmp_path: Path, wrong: float) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = wrong
    file = saved(tmp_path / "depth.tiff", values)
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=r"depth.tiff \(mode F\) holds values from"):
            read(file)


def test_transparent_images_are_laid_on_white(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alpha = np.where(INSIDE, 255, 0)
    numbers = INSIDE.astype(np.uint8)
    files = [
        saved(tmp_path / "rgba.png", with_alpha(RED, alpha)),
        saved(tmp_path / "rgba.webp", with_alpha(RED, alpha), lossless=True),
        saved(tmp_path / "p.png", palette([BLACK, RED], numbers), transparency=0),
        saved(tmp_path / "key.png", palette([BLACK, RED], numbers), "RGB", transparency=BLACK),
    ]
    for file in files:
        image = read_image(file)
        assert (image[INSIDE] == RED).all() and (image[~INSIDE] == 255).all(), file.name
        assert f"{file.name} is partly transparent: it is laid on white" in caplog.text
    caplog.clear()
    half = saved(tmp_path / "la.png", with_alpha(BLACK, np.full((8, 16), 128)), "LA")
    assert np.abs(read_image(half).astype(int) - 127).max() <= 1
    opaque = saved(tmp_path / "opaque.png", with_alpha(GREEN, np.full((8, 16), 255)))
    assert (read_image(opaque) == GREEN).all() and "opaque" not in caplog.text


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 8), colour) for colour in (RED, GREEN)]
    for suffix in ("png", "webp"):
        file = tmp_path / f"moving.{suffix}"
        frames[0].save(file, save_all=True, append_images=frames[1:], lossless=True)
        assert (read_image(file) == RED).all()


def test_cmyk_and_grey_are_read(tmp_path: Path) -> None:
    red = saved(tmp_path / "red.jpg", Image.new("RGB", (16, 8), RED), "CMYK")
    assert np.abs(read_image(red).astype(int) - RED).max() < 8
    grey = saved(tmp_path / "grey.png", np.full((8, 16), 77, np.uint8))
    assert (read_image(grey) == 77).all()
    assert np.array_equal(read_mask(saved(tmp_path / "bits.png", INSIDE)), INSIDE)


def late_exif(file: Path, orientation: int) -> None:
    """Move the orientation of a PNG behind its pixels, as some cameras and editors write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    payload = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(payload)) + b"eXIf" + payload
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + payload))
    content = file.read_bytes()
    end = content.rindex(b"IEND") - 4
    file.write_bytes(content[:end] + chunk + content[end:])


@pytest.mark.parametrize(("most", "warned"), [(4095, True), (1023, True), (8191, False)])
@pytest.mark.parametrize("colour", [False, True])
def test_samples_of_few_bits_are_read_as_dark_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, most: int, warned: bool, colour: bool
) -> None:
    """A dark picture can't be told from 12 bits in a file of 16."""
    grey = np.round(RAMP * most).astype(np.uint16)
    path = tmp_path / "a.png"
    if colour:
        sixteen_bit_colour(path, grey[..., None].repeat(3, axis=2))
    else:
        saved(path, Image.fromarray(grey))
    assert abs(int(read_image(path).max()) - most / 257) <= 1
    assert ("no value above 4095" in caplog.text and "multiply them by 16" in caplog.text) == warned


@pytest.mark.parametrize(("orientation", "size"), [(6, (16, 8)), (3, (8, 16))])
def test_an_orientation_behind_the_pixels_counts(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    image = saved(tmp_path / "1.png", np.where(INSIDE, 255, 0).astype(np.uint8))
    upright = read_mask(image)
    late_exif(image, orientation)
    turned = np.rot90(upright, 2 if orientation == 3 else -1)
    assert image_size(image) == size == read_image(image).shape[:2]
    assert np.array_equal(read_mask(image), turned)
    assert np.array_equal(load_masks([image], size).masks[0], turned)


def sixteen_bit_colour(file: Path, levels: np.ndarray) -> Path:
    """Write a PNG of [H, W, 3] uint16, which Pillow can't write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = levels.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in levels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    return file


def test_colours_of_sixteen_bits(tmp_path: Path) -> None:
    levels = np.repeat(np.round(RAMP * 65535)[..., None], 3, axis=2)
    image = read_image(sixteen_bit_colour(tmp_path / "ramp.png", levels))
    np.testing.assert_allclose(image[..., 0], RAMP * 255, atol=1)
    white = np.repeat(INSIDE[..., None], 3, axis=2) * 65535
    assert np.array_equal(read_mask(sixteen_bit_colour(tmp_path / "w.png", white)), INSIDE)
    with pytest.raises(ValueError, match="no colour of 16 bits above 255"):
        read_mask(sixteen_bit_colour(tmp_path / "one.png", white // 65535))


@pytest.mark.parametrize("pale", [1, 100])
def test_a_pale_transparency_is_a_mask_too(tmp_path: Path, pale: int) -> None:
    file = saved(tmp_path / "pale.png", with_alpha(BLACK, INSIDE * pale))
    assert np.array_equal(read_mask(file), INSIDE)


def test_a_mask_in_black_and_white_that_is_partly_transparent_is_refused(tmp_path: Path) -> None:
    corner = np.full((8, 16), 255, np.uint8)
    corner[0, 0] = 0
    image = Image.fromarray(INSIDE.astype(np.uint8) * 255).convert("RGB")
    image.putalpha(Image.fromarray(corner))
    with pytest.raises(ValueError, match="is black and white, and partly transparent"):
        read_mask(saved(tmp_path / "corner.png", image))


def masks_that_show_it() -> dict[str, tuple[Image.Image | np.ndarray, dict[str, Any]]]:
    """The same mask in all the ways in which tools write one."""
    numbers = INSIDE.astype(np.uint8)
    soft = np.where(INSIDE, 250, 3).astype(np.uint8)
    alpha = np.where(INSIDE, 255, 0)
    return {
        "zero-one.png": (numbers, {}),
        "zero-one-rgb.png": (np.repeat(numbers[..., None], 3, axis=2), {}),
        "dark.png": (numbers * 38, {}),
        "white.png": (numbers * 255, {}),
        "soft.jpg": (soft, {"quality": 95}),
        "16-bit.png": (numbers.astype(np.uint16) * 65535, {}),
        "16-bit-zero-one.png": (numbers.astype(np.uint16), {}),
        "16-bit-255.png": (numbers.astype(np.uint16) * 255, {}),
        "float.tiff": (numbers.astype(np.float32), {}),
        "voc.png": (palette([BLACK, (128, 0, 0)], numbers), {}),
        "dark-green.png": (palette([BLACK, (0, 64, 0)], numbers), {}),
        "other-order.png": (palette([WHITE, BLACK], 1 - numbers), {}),
        "red.png": (palette([BLACK, RED], numbers).convert("RGB"), {}),
        "red.jpg": (palette([BLACK, RED], numbers).convert("RGB"), {"quality": 95}),
        "alpha.png": (with_alpha(BLACK, alpha), {}),
        "alpha-white.png": (with_alpha(WHITE, alpha), {}),
        "grey-alpha.png": (with_alpha(BLACK, alpha).convert("LA"), {}),
        "opaque.png": (Image.fromarray(numbers * 255).convert("RGBA"), {}),
        "all-transparent.png": (Image.fromarray(numbers * 255).convert("LA"), {}),
        "palette-alpha.png": (palette([RED, GREEN], numbers), {"transparency": 0}),
    }


@pytest.mark.parametrize("name", [*masks_that_show_it()])
def test_a_mask_is_what_it_shows(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    pixels, more = masks_that_show_it()[name]
    found = load_masks([saved(tmp_path / name, pixels, **more)], INSIDE.shape)
    differing = (found.masks[0] != INSIDE).mean()
    assert differing <= (0.1 if name == "red.jpg" else 0), f"{differing} of the pixels"
    assert found.fallbacks == 0 and not caplog.text


def masks_that_do_not_say() -> dict[str, Image.Image | np.ndarray]:
    numbers = INSIDE.astype(np.uint8)
    labels = numbers.copy()
    labels[:2, :5] = 2
    return {
        "instances.png": labels,
        "labels-and-border.png": np.where(labels == 2, 255, numbers).astype(np.uint8),
        "voc-border.png": np.where(INSIDE, 255, np.eye(*INSIDE.shape, dtype=np.uint8)),
        "one-two.png": numbers + 1,
        "classes.png": palette([BLACK, (128, 0, 0), (0, 128, 0)], labels),
        "shades.png": palette([BLACK, (64, 0, 0), (192, 0, 0)], labels),
        "border.png": palette([BLACK, (128, 0, 0), (224, 224, 192)], labels),
        "no-black.png": palette([WHITE, RED], numbers),
        "photo.png": np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8),
    }


@pytest.mark.parametrize("name", [*masks_that_do_not_say()])
def test_a_map_of_labels_is_refused_as_what_it_is(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path / name, masks_that_do_not_say()[name])
    with pytest.raises(ValueError, match=rf"mask \S+{name} holds .*white") as error:
        read_mask(file)
    assert "empty" not in str(error.value)


def test_an_empty_mask_is_empty(tmp_path: Path) -> None:
    file = saved(tmp_path / "black.png", np.zeros((8, 16), np.uint8))
    assert not read_mask(file).any() and load_masks([file], (8, 16)).fallbacks == 1


def test_only_files_that_were_read_otherwise_before_have_other_keys(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.png", INSIDE.astype(np.uint8) * 255)
    assert image_digest(plain) == mask_digest(plain)
    assert image_digest(saved(tmp_path / "rgb.png", Image.new("RGB", (8, 8)))).isalnum()
    assert not mask_digest(saved(tmp_path / "dark.png", INSIDE.astype(np.uint8))).isalnum()
    clear = saved(tmp_path / "clear.png", with_alpha(RED, np.where(INSIDE, 255, 0)))
    assert not image_digest(clear).isalnum()
