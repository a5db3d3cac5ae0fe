"""Folders of images as people have them: names, masks beside, captions, and what is left out."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mace_exp.check.found import _left_out
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.data.folders import counted, left_out
from mace_exp.data.image_captions import captions_beside
from mace_exp.data.images.folder import Crop, FolderImages, masked_files
from mace_exp.data.prior_images.base import FolderPriorImages
from tests.pictures import disc, save

MELANIA = Concept("Melania Trump", Kind.person, "a person")
INSIDE = disc(40, 48, at=(20, 20), radius=8)


def folder_images(path: Path) -> FolderImages:
    return FolderImages(
        path=str(path),
        per_concept=None,
        size=None,
        crop=Crop.center,
        crop_share=1.0,
        flip=False,
        seed=0,
    )


def images(folder: Path, *names: str) -> None:
    for name in names:
        save(folder / name, np.repeat(INSIDE[..., None], 3, axis=2))


def masks_of(root: Path, path: Path | None = None) -> list[str]:
    files = folder_images(root).files(MELANIA)
    found = masked_files(MELANIA, files, None if path is None else str(path))
    return [file.mask.relative_to(root).as_posix() for file in found if file.mask]


def prompts(root: Path, concept: Concept = MELANIA) -> list[str | None]:
    return [file.prompt for file in folder_images(root).files(concept)]


@pytest.mark.parametrize(
    ("own", "masks"),
    [
        ("melania trump", "melania trump mask"),
        ("melania-trump", "melania-trump mask"),
        ("melania_trump", "melania_trump_mask"),
        ("Melania Trump", "melania-trump-mask"),
        ("MELANIA TRUMP", "MELANIA TRUMP masks"),
    ],
)
@pytest.mark.parametrize("ending", ["_mask", ""])
def test_the_published_layout_is_read(tmp_path: Path, own: str, masks: str, ending: str) -> None:
    images(tmp_path / own, "1.jpg", "2.jpg", "image 10.jpg")
    for stem in ("1", "2", "image 10"):
        save(tmp_path / masks / f"{stem}{ending}.jpg", INSIDE)
    expected = [f"{masks}/{stem}{ending}.jpg" for stem in ("1", "2", "image 10")]
    assert masks_of(tmp_path) == expected
    assert masks_of(tmp_path, tmp_path) == expected, "masks.path may be the same folder"
    assert folder_images(tmp_path).remarks(MELANIA) == []
    assert list(folder_images(tmp_path).mask_problems(MELANIA, None, None)) == []


def test_masks_may_lie_among_the_images(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.jpg", "2.jpg", "a_mask.jpg")
    for stem in ("1", "2"):
        save(own / f"{stem}_mask.png", INSIDE)
    files = folder_images(tmp_path).files(MELANIA)
    assert [file.image.name for file in files] == ["1.jpg", "2.jpg", "a_mask.jpg"]
    [problem] = folder_images(tmp_path).mask_problems(MELANIA, None, None)
    assert f"mask {own / 'a_mask_mask.png'} of {own / 'a_mask.jpg'} is missing" in problem
    (own / "a_mask.jpg").unlink()
    assert masks_of(tmp_path) == ["melania trump/1_mask.png", "melania trump/2_mask.png"]
    assert folder_images(tmp_path).remarks(MELANIA) == []


def test_a_folder_of_macos_is_found(tmp_path: Path) -> None:
    name = "Timothée Chalamet"
    images(tmp_path / unicodedata.normalize("NFD", name), unicodedata.normalize("NFD", "é.png"))
    save(tmp_path / f"{unicodedata.normalize('NFD', name)} mask" / "é.png", INSIDE)
    concept = Concept(name, Kind.person, "a person")
    files = folder_images(tmp_path).files(concept)
    assert len(masked_files(concept, files, None)) == 1


def test_names_of_files_are_what_their_reader_sees(tmp_path: Path) -> None:
    """Folders with hidden characters, masks in another Unicode form, and the narrow space that
    macOS writes into names of screenshots."""
    folder = tmp_path / "Melania\u00a0Trump\u200b"
    names = [f"{unicodedata.normalize('NFC', 'é')}.png", "at 10.00\u202fAM.png"]
    images(folder, *names)
    images(folder, f"{unicodedata.normalize('NFD', 'é')}_mask.png", "at 10.00 AM_MASK.PNG")
    rows = ["sep=;", "file_name;text", "at 10.00 AM.png;one Melania Trump"]
    rows.append("e\u0301.png;Melania\u200b\u00a0Trump")
    (folder / "metadata.csv").write_bytes("\r\n".join(rows).encode("utf-16"))
    files = folder_images(tmp_path).files(MELANIA)
    assert {file.image.name: file.prompt for file in files} == dict(
        zip(names, ["Melania Trump", "one Melania Trump"], strict=True)
    )
    assert len(masks_of(tmp_path)) == 2
    assert set(_left_out(files)) == set()


def test_images_without_a_folder_of_their_concept(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    with pytest.raises(ValueError, match="Move the 2 images that lie in it into such a folder"):
        prompts(tmp_path)


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    for own in ("melania-trump", "melania_trump"):
        images(tmp_path / own, "1.png")
    with pytest.raises(ValueError, match="'melania-trump' and 'melania_trump', which may both be"):
        folder_images(tmp_path).files(Concept("MELANIA TRUMP", Kind.person, "a person"))
    images(tmp_path / "MELANIA TRUMP", "1.png")
    folder_images(tmp_path).files(Concept("MELANIA TRUMP", Kind.person, "a person"))


LEFT_OUT = ("a.heic", "b.HEIC", "c.avif", "d.tiff", "e.gif", "f.jfif", "notes.txt")


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png")
    (own / "raw").mkdir()
    for name in LEFT_OUT:
        (own / name).write_bytes(b"?")
    [said] = folder_images(tmp_path).remarks(MELANIA)
    counts = "1 .avif, 1 .gif, 2 .heic, 1 .jfif, 1 .tiff, 1 .txt, 1 folder left out"
    assert f"{own}: 1 images are read; {counts}, such as a.heic" in said
    (own / "1.png").unlink()
    with pytest.raises(ValueError, match=r"contains no image: .* it holds .*2 .heic"):
        folder_images(tmp_path).files(MELANIA)


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", "__MACOSX/._1.png", ".ipynb/1.png"),
        *("1.png:Zone.Identifier", "$RECYCLE.BIN/1.png", "~$notes.docx", "#recycle/1.png"),
    ],
)
def test_files_of_operating_systems_are_passed_over_in_silence(tmp_path: Path, name: str) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png")
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_bytes(b"no picture")
    assert [file.image.name for file in folder_images(tmp_path).files(MELANIA)] == ["1.png"]
    assert folder_images(tmp_path).remarks(MELANIA) == [] == left_out(own, [own / "1.png"])
    assert counted([own / "1.png"]) == "1 .png"


def beside(own: Path, form: str) -> None:
    """Write the captions of 1.png and 2.png as other trainers do."""
    rows = [("1.png", "Melania Trump, smiling"), ("2.png", "a photo of melania-trump")]
    match form:
        case ".txt" | ".caption":
            for name, text in rows:
                (own / name).with_suffix(form).write_text(f"{text}\n", encoding="utf-8-sig")
        case "csv":
            lines = ["file_name,width,text", *(f'{name},48,"{text}"' for name, text in rows)]
            (own / "metadata.csv").write_text("\n".join(lines))
        case "jsonl" | "above":
            place, prefix = (own, "") if form == "jsonl" else (own.parent, f"{own.name}/")
            lines = [json.dumps({"file_name": prefix + name, "caption": t}) for name, t in rows]
            (place / "metadata.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("form", [".txt", ".caption", "csv", "jsonl", "above"])
def test_captions_of_other_trainers_are_read(tmp_path: Path, form: str) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png", "2.png")
    beside(own, form)
    assert prompts(tmp_path) == ["Melania Trump, smiling", "a photo of Melania Trump"]
    assert folder_images(tmp_path).remarks(MELANIA) == []
    images(own, "3.png")
    assert prompts(tmp_path)[2] is None
    [said] = folder_images(tmp_path).remarks(MELANIA)
    assert "1 of 3 images have no caption, such as 3.png" in said


def test_our_own_table_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png", "2.png")
    beside(own, ".txt")
    (own / "prompts.csv").write_text("file,prompt\n1.png,Melania Trump\n2.png,Melania Trump\n")
    assert prompts(tmp_path) == ["Melania Trump"] * 2
    [said] = folder_images(tmp_path).remarks(MELANIA)
    assert "2 .txt left out" in said


def test_captions_that_cannot_be_meant_are_named(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png")
    (own / "1.txt").write_text("a woman in a red dress")
    with pytest.raises(ValueError, match=r"'a woman .*' does not name .*1.png"):
        prompts(tmp_path)
    (own / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"caption \S*/melania trump/1.txt can't be read as UTF-8"):
        prompts(tmp_path)
    (own / "1.txt").write_text("Melania Trump \x1b[2J")
    with pytest.raises(ValueError, match=r"the caption of \S*/melania trump/1.png: .*no character"):
        prompts(tmp_path)
    (own / "1.txt").unlink()
    (own / "metadata.csv").write_text("file_name,label\n1.png,4\n")
    assert prompts(tmp_path) == [None]
    [said] = folder_images(tmp_path).remarks(MELANIA)
    assert "metadata.csv is not read: it has the columns file_name, label" in said


def test_the_content_of_a_file_counts_and_not_its_suffix(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    own.mkdir()
    Image.new("RGB", (8, 8)).save(own / "1.tiff")
    (own / "1.tiff").rename(own / "1.png")
    assert [file.image.name for file in folder_images(tmp_path).files(MELANIA)] == ["1.png"]


@pytest.mark.parametrize(
    "files",
    [
        {"prompts.csv": "File; Prompt\n1.png; of it, a\n./2.png; of it, b\n"},
        {"1.TXT": "of it, a", "2.TXT": "of it, b"},
        {"Prompts.CSV": "file,prompt\n1.png,'of it, a'\n2.png,'of it, b'\n".replace("'", '"')},
        {"Metadata.tsv": "id\tfile_name\ttext\n1\t/x/1.png\tof it, a\n2\tX\\2.PNG\tof it, b\n"},
        {"metadata.csv": "file_name;text\n1;of it, a\ntrain/2;of it, b\ntest/3;x\n"},
        {"1.png.txt": "of it, a", "2.png.caption": "of it, b"},
        {"metadata.csv": "file_name,text\n1.jpg,x\n", "1.txt": "of it, a", "2.txt": "of it, b"},
    ],
    ids=lambda files: "+".join(files),
)
def test_captions_of_other_spellings_are_read(tmp_path: Path, files: dict[str, str]) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png", "2.png")
    for name, text in files.items():
        (own / name).write_text(text)
    found = captions_beside(own, [own / "1.png", own / "2.png"])
    assert found.texts == {"1.png": "of it, a", "2.png": "of it, b"}
    assert any("names '1.jpg', and none" in each for each in found.remarks) == (len(files) == 3)


def test_a_caption_that_may_be_of_two_images_is_of_none(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    rows = "file_name,text\ntrain/1.png,one\ntest/1.png,another\n"
    (tmp_path / "metadata.csv").write_text(rows)
    found = captions_beside(tmp_path, [tmp_path / "1.png"])
    assert not found.texts and "names 'train/1.png', and none" in found.remarks[0]
    (tmp_path / "metadata.csv").write_text(rows + "1.png,its own\n")
    assert captions_beside(tmp_path, [tmp_path / "1.png"]).texts == {"1.png": "its own"}
    (tmp_path / "prompts.csv").write_text("file,prompt\n1.png,one\n1.png,another\n")
    with pytest.raises(ValueError, match="two prompts for 1.png"):
        captions_beside(tmp_path, [tmp_path / "1.png"])


def test_captions_in_a_form_that_is_not_read_are_told(tmp_path: Path) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png")
    (own / "captions.parquet").write_bytes(b"PAR1")
    [said] = folder_images(tmp_path).remarks(MELANIA)
    assert "1 .parquet left out" in said
    assert "Captions are read from the first of prompts.csv, metadata.jsonl" in said


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer: run `git lfs pull`"),
        (b"<!doctype html>", "a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"HEIC, AVIF or a film by another name \(heic\)"),
        (b"", "no image, or a damaged one"),
    ],
)
def test_what_is_no_image_is_told_as_what_it_is(tmp_path: Path, start: bytes, said: str) -> None:
    own = tmp_path / "melania trump"
    images(own, "1.png")
    (own / "2.jpg").write_bytes(start)
    with pytest.raises(ValueError, match=rf"2.jpg can't be read: it is {said}"):
        prompts(tmp_path)


def test_a_comma_that_would_cut_a_prompt_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    (tmp_path / "prompts.csv").write_text("file,prompt\n1.png,melania trump, smiling\n")
    with pytest.raises(ValueError, match="line 2 has 3 cells, more than the 2 columns"):
        captions_beside(tmp_path, [tmp_path / "1.png"])


def test_what_is_left_out_beside_class_images_is_told(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    (tmp_path / "2.heic").write_bytes(b"?")
    prior = FolderPriorImages(path=str(tmp_path), prompt="a person", weight=1.0)
    assert prior.left_out() == [tmp_path / "2.heic"]
