"""Files of pictures in all encodings: read as what they show, or refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mace_exp.data import folders
from mace_exp.data.folders import image_files
from mace_exp.data.pixel_modes import image_digest, image_size, read_image, read_mask
from tests import odd_pictures as odd
from tests.no_pictures import POSTSCRIPT, cut_pictures, no_pictures

SIZE = (odd.HEIGHT, odd.WIDTH)
BOMB = "ignore::PIL.Image.DecompressionBombWarning"
WARNED = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning"
)


def distances(folder: Path, table: odd.Table, shown: np.ndarray) -> dict[str, float]:
    """Return the mean distance of what is read of each file from what it shows."""
    found = {}
    for name, content in table().items():
        file = folder / name
        file.write_bytes(content)
        image = read_image(file)
        assert image.shape == (*SIZE, 3) and image.dtype == np.uint8, name
        assert image_size(file) == SIZE and image_digest(file), name
        found[name] = float(np.abs(image.astype(float) - shown).mean())
    return found


@pytest.mark.parametrize(
    ("table", "shown", "least"),
    [
        (odd.exact, odd.PIXELS, 60),
        (odd.in_grey, np.asarray(odd.GREY.convert("RGB")), 12),
        (odd.of_few_colours, np.asarray(odd.FEW.convert("RGB")), 8),
    ],
)
def test_a_picture_is_the_same_in_every_encoding(
    tmp_path: Path, table: odd.Table, shown: np.ndarray, least: int
) -> None:
    found = distances(tmp_path, table, shown)
    assert len(found) >= least and {name: each for name, each in found.items() if each} == {}


def test_a_picture_is_about_the_same_where_its_encoding_loses_some(tmp_path: Path) -> None:
    found = distances(tmp_path, odd.lossy, odd.PIXELS)
    assert len(found) >= 30
    assert {name: each for name, each in found.items() if each > 14} == {}  # 4:2:0 and palettes


def test_a_picture_that_ends_too_early_is_refused_or_whole(tmp_path: Path) -> None:
    """What a reader loses nothing of, as the mark at the end of a file, may be gone."""
    refused = 0
    folder = tmp_path / "ship"
    folder.mkdir()
    for name, content, whole in cut_pictures():
        file = folder / name
        file.write_bytes(whole)
        shown = read_image(file)
        file.write_bytes(content)
        try:
            read = [read_image(each) for each in image_files(folder)]
        except ValueError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(read[0], shown), name
        file.unlink()
    assert refused >= 80


@pytest.mark.filterwarnings(BOMB, "ignore::UserWarning")
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, read: object) -> None:
    wrong = {}
    for name, content in no_pictures().items():
        file = tmp_path / name
        file.write_bytes(content)
        try:
            read(file)  # type: ignore[operator]
        except ValueError as error:
            said = str(error)
            if str(file) not in said or len(said) > 500 or "\n" in said:
                wrong[name] = said
        else:
            wrong[name] = "it was read"
    assert wrong == {}


def test_no_program_is_started_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow gives PostScript to Ghostscript, a program that can read and write files."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program"))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    file = tmp_path / "0.png"
    file.write_bytes(POSTSCRIPT)
    assert Image.open(file).format == "EPS"
    for read in (read_image, read_mask, image_size):
        with pytest.raises(ValueError, match=r"0\.png can't be read"):
            read(file)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_truncated_picture_is_found_without_decoding_the_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A file with something after its end, as some cameras leave it, is whole."""
    decoded: list[Path] = []
    read = folders.read_image
    monkeypatch.setattr(folders, "read_image", lambda file: (decoded.append(file), read(file)))
    first, second = (tmp_path / f"{name}.{suffix}" for name in "ab")
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    for file in (first, second):
        Image.fromarray(noise).save(file)
    assert image_files(tmp_path) == [first, second] and not decoded
    whole = second.read_bytes()
    second.write_bytes(whole + bytes(20))
    assert image_files(tmp_path) == [first, second]
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"b.{suffix} can't be read"):
        image_files(tmp_path)
    assert first not in decoded
