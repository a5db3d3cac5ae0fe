"""Pipes, sockets, devices, folders and links that lead nowhere, in the place of files at every
door: refused by name at once, and never waited for."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mace_exp.cli.arguments import expand
from mace_exp.cli.config_dir import keep_options
from mace_exp.cli.revision import read_revision
from mace_exp.compare import compared
from mace_exp.concepts.captions import read_captions, read_templates
from mace_exp.config.composing import composed_run
from mace_exp.config.refusals import explain
from mace_exp.convert import read as read_published
from mace_exp.data.files import concept_files, listed_files, with_masks
from mace_exp.data.image_captions import captions_beside
from mace_exp.data.pixel_modes import image_digest, image_size, read_image, read_mask
from mace_exp.data.training_images import load_images
from mace_exp.evaluation.detections import read_detections
from mace_exp.evaluation.neighbours import read_neighbours
from mace_exp.evaluation.prompt_files import FIELDS, read_prompts
from mace_exp.evaluation.scores import read_scores
from mace_exp.export import export
from mace_exp.metrics import remeasure
from mace_exp.models.auxiliary import check_auxiliary
from mace_exp.models.sources import find_model
from mace_exp.models.weight_files import read_header, read_object
from mace_exp.preservation.statistics import read_statistics
from mace_exp.report.__main__ import report
from mace_exp.report.pictures import encode
from mace_exp.runs.cache import Cache
from mace_exp.runs.claims import claim, release
from mace_exp.utils.files import write_text
from mace_exp.utils.hashing import content_digest, file_digest
from mace_exp.utils.reading import read_json, read_record, read_text
from mace_exp.utils.tables import read_table
from mace_exp.utils.tensors import load_tensors
from mace_exp.utils.yaml_files import read_plain
from tests.fake_run import make_run
from tests.pictures import own_folder


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # its address has at most a hundred characters
        made.bind(path.name)


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": a_socket,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a device without content": lambda path: path.symlink_to("/dev/null"),
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
}
COLUMNS = {field: [field] for field in FIELDS}
Reader = Callable[[Path], object]
READERS: dict[str, tuple[str, Reader]] = {
    "captions": ("a.txt", read_captions),
    "a table of captions": ("a.csv", read_captions),
    "COCO": ("a.json", read_captions),
    "templates": ("a.txt", read_templates),
    "prompts": ("a.csv", lambda path: read_prompts(path, COLUMNS)),
    "a table": ("a.tsv", read_table),
    "text": ("a.txt", read_text),
    "JSON": ("a.json", read_json),
    "YAML": ("a.yaml", read_plain),
    "a published configuration": ("a.yaml", read_published),
    "tensors": ("a.safetensors", load_tensors),
    "statistics": ("a.safetensors", read_statistics),
    "weights": ("a.safetensors", read_header),
    "a model's description": ("config.json", read_object),
    "a model": ("a.safetensors", find_model),
    "an auxiliary model": ("config.json", lambda path: check_auxiliary(str(path.parent))),
    "scores": ("scores.csv", read_scores),
    "neighbours": ("neighbours.csv", read_neighbours),
    "boxes": ("detections.csv", lambda path: read_detections(path, 1)),
    "training images": ("prompts.csv", lambda path: load_images(path.parent)),
    "an image": ("0.png", read_image),
    "a mask": ("0.png", read_mask),
    "the size of an image": ("0.png", image_size),
    "the digest of an image": ("0.png", image_digest),
    "the digest of a file": ("a", file_digest),
    "a list of images": ("a.txt", lambda path: listed_files(path, path)),
}
"""Functions that read a file that a user names, and a name that they read."""


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """End a test that waits for the other end of a pipe."""

    def wait(number: int, frame: object) -> None:
        pytest.fail("it waits for a file that has no end")

    former = signal.signal(signal.SIGALRM, wait)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def refused(read: Callable[[], object], name: str) -> None:
    """Check that a command ends in one message that holds a name."""
    with pytest.raises((ValueError, OSError)) as error:
        read()
    said = explain(error.value)
    assert name in said and "\n" not in said


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, kind: str, name: str) -> None:
    file, read = READERS[name]
    if (name, kind) == ("the digest of a file", "a folder"):
        assert content_digest(tmp_path)
        return
    if name == "a model" and kind == "a folder":
        file = "model_index.json"  # a folder is a model, which lacks its index
    KINDS[kind](tmp_path / file)
    refused(lambda: read(tmp_path / file), file)


OF_A_MODEL = (
    *("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"),
    *("scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors"),
    *("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"),
    "tokenizer/tokenizer_config.json",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_made_of_files(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    there = [each for each in OF_A_MODEL if (folder / each).is_file()]
    assert len(there) >= 8
    for file in there:
        (folder / file).rename(tmp_path / "aside")
        KINDS[kind](folder / file)
        refused(lambda: find_model(folder), str(folder))
        remove(folder / file)
        (tmp_path / "aside").rename(folder / file)
    find_model(folder)
    KINDS[kind](folder / "tokenizer" / "added.txt")  # what its tokenizer may read
    if (folder / "tokenizer" / "added.txt").exists() and kind != "a folder":
        refused(lambda: find_model(folder), "added.txt")


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_own_images_with_one_that_is_no_file(tmp_path: Path, kind: str) -> None:
    own_folder(tmp_path, "ship", masks="within")
    for name, read in {
        "ship/1.png": lambda: concept_files(tmp_path, ["ship"]),
        "ship/masks/1.png": lambda: with_masks(
            concept_files(tmp_path, ["ship"]), tmp_path / "ship" / "masks"
        ),
        "ship/prompts.csv": lambda: concept_files(tmp_path, ["ship"]),
        "ship/metadata.jsonl": lambda: captions_beside(tmp_path / "ship", []),
    }.items():
        path = tmp_path / name
        known = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        KINDS[kind](path)
        refused(read, path.name)
        remove(path)
        if known is not None:
            path.write_bytes(known)


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device without end"])
def test_a_run_folder_with_a_pipe_is_refused_before_its_log_is_opened(
    tmp_path: Path, kind: str
) -> None:
    for name in ("run.log", "metrics.jsonl", "status.json", "anything"):
        path = tmp_path / name
        KINDS[kind](path)
        refused(lambda: claim(tmp_path, "hydra.run.dir"), name)
        path.unlink()
    claim(tmp_path, "hydra.run.dir")
    release(tmp_path)


RUN_FILES = (
    *("config.yaml", "status.json", "metrics.json", "metrics.jsonl", "keys.json", "manifest.json"),
    *("erased.json", "edit.safetensors", "scores.csv", "neighbours.csv", "masks/index.csv"),
    *("samples/prompts.csv", "samples/after/0000.png", "detections.csv"),
)


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device without end"])
def test_commands_on_a_run_folder_with_a_pipe_end(tmp_path: Path, kind: str) -> None:
    """They name it, or go on without it, as without the file."""
    whole = make_run(tmp_path / "run", erased=["Amy Adams"], each=1)
    for name in RUN_FILES:
        path, aside = whole / name, tmp_path / "aside"
        if path.exists():
            path.rename(aside)
        KINDS[kind](path)
        for command in (
            lambda: expand([f"resume={whole}"]),
            lambda: read_revision([f"from={whole}", "drop=[Amy Adams]"]),
            lambda: export(whole, tmp_path / "exported"),
            lambda: remeasure(whole, {}),
            lambda: compared([whole, whole]),
            lambda: report(whole),
        ):
            try:
                command()
            except (ValueError, OSError) as error:
                assert str(whole) in explain(error)
        status_of_run = read_record(whole / "status.json")
        assert isinstance(status_of_run, dict)
        path.unlink()
        if aside.exists():
            aside.rename(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_entry_that_is_no_file_is_made_again(tmp_path: Path, kind: str) -> None:
    cache = Cache(tmp_path / "cache")

    def make(missing: dict[str, Path]) -> None:
        for path in missing.values():
            write_text(path, "made")

    def get() -> Path:
        return cache.get_all("loras", {"a": "key"}, make, stage="lora")["a"]  # type: ignore[arg-type]

    entry = get()
    for path in (entry, cache.root / "checksums" / "loras-key"):
        path.unlink()
        KINDS[kind](path)
        if path != entry and kind == "a link to itself":
            refused(get, path.name)  # the system says so at once
        else:
            assert get().read_text() == "made" and entry.is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_options_that_no_run_reads_may_be_anything(tmp_path: Path, kind: str) -> None:
    from types import SimpleNamespace

    group = tmp_path / "own" / "lora"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text("defaults: [mini, _self_]\nrank: 3\n")
    KINDS[kind](group / "odd.yaml")
    config = composed_run("lora=mine", config_dir=tmp_path / "own", files=False)
    assert config.lora.rank == 3
    keep_options([SimpleNamespace(schema="file", path=str(tmp_path / "own"))], tmp_path / "run")
    assert [each.name for each in (tmp_path / "run").rglob("*.yaml")] == ["mine.yaml"]
    with pytest.raises(ValueError, match="odd"):
        composed_run("lora=odd", config_dir=tmp_path / "own", files=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_a_report_that_is_no_file_is_left_out(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "0.png")
    assert encode(tmp_path / "0.png", 96) is None
