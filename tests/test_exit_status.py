"""Every end of a command is clear: one message, an exit status, nothing left of what is refused."""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mace_exp.cli.ending import ended
from mace_exp.runs.folder import Contents
from mace_exp.utils.errors import OutOfMemory
from mace_exp.utils.files import atomic_file
from mace_exp.utils.reading import read_json, regular
from mace_exp.utils.tensors import load_tensors
from mace_exp.utils.texts import cut
from tests.full_disk import no_file_over

SHIP = ("concepts=[ship]", "concepts.kind=object")


def slow_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "images" / "ship").mkdir(parents=True)
    os.mkfifo(folder / "images" / "ship" / "0.png")
    (folder / "deep.json").write_text('{"annotations":' + "[" * 100_000)


SLOW = {
    "brackets": (("concepts=[" + "[" * 400,), "this is not key=value|nested too deeply"),
    "nested brackets": (("concepts=" + "[" * 60 + "a" + "]" * 60,), "."),
    "a name of a book": (("concepts=[" + "a" * 30_000 + "]",), "has 30000 characters|the name"),
    "a value of a book": (("lora.rank=" + "a" * 100_000,), "it takes a whole number|characters"),
    "a pipe of captions": ((*SHIP, "preservation.prior.file=pipe"), "pipe is not a file"),
    "a pipe of templates": ((*SHIP, "prompts=file", "prompts.path=pipe"), "no regular file"),
    "a pipe as an image": ((*SHIP, "images=folder", "images.path=images"), "no regular file"),
    "a pipe of statistics": ((*SHIP, "preservation.prior.cache=pipe"), "pipe is not a file"),
    "a pipe of names": ((*SHIP, "evaluation.unlisted_file=pipe"), "no regular file"),
    "a deep list of names": ((*SHIP, "evaluation.unlisted_file=deep.json"), "not valid JSON"),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_would_take_forever_is_refused_at_once(
    refusal: Callable[..., str], tmp_path: Path, name: str
) -> None:
    slow_files(tmp_path)
    arguments, said = SLOW[name]
    started = time.monotonic()
    message = refusal(*arguments)
    assert time.monotonic() - started < 30, "many times what it takes, on a busy machine"
    assert re.search(said, message) and len(message) < 2_500


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (regular, read_json, load_tensors):
        with pytest.raises(ValueError, match="pipe is no regular file"):
            read(pipe)


def test_long_lines_are_cut_in_their_middle() -> None:
    text = f"a key = {'x' * 10_000}: what to do\nnext"
    assert cut("short\n" * 500) == "short\n" * 500
    assert cut(text).startswith("a key = xx") and cut(text).endswith("x: what to do\nnext")
    assert len(cut(text)) < 2_100 and "(8020 characters)" in cut(text)


def test_a_full_disk_names_the_file_that_had_no_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as refused:
        with atomic_file(tmp_path / "cache" / "entry.npy"):
            raise OSError("1024 requested and 12 written")  # as numpy says it
    assert refused.value.filename == str(tmp_path / "cache" / "entry.npy")


def test_a_log_without_room_shows_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("full")
    handler = logging.FileHandler(tmp_path / "run.log")
    log.addHandler(handler)
    try:
        with ended("x"), no_file_over(64):
            for _ in range(9):
                log.error("a line of some length")
        assert "Traceback" not in capsys.readouterr().err
        with no_file_over(64):
            log.error("the same outside of a command")
        assert "Traceback" in capsys.readouterr().err
    finally:
        log.removeHandler(handler)
        handler.close()


def test_a_refused_run_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "kept").write_text("")
    before = Contents.of(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n{}\n")
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "wandb" / "run").mkdir(parents=True)
    before.restore()
    assert {each.name for each in tmp_path.iterdir()} == {"metrics.jsonl", "kept"}
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_what_the_loaded_model_refuses_leaves_nothing(
    ends: Callable[..., object],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "concepts=[" + "qxj zvk " * 18 + "]"
    said = ends(*arguments, long, "hydra.run.dir=run")
    assert "tokens" in str(said) and isinstance(said, str), "exit status 2, with a message"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory."), OSError(12, "Cannot allocate memory")],
)
def test_out_of_memory_names_stage_concept_and_remedy(tmp_path: Path, error: Exception) -> None:
    from mace_exp.pipeline import _explained_memory

    error.add_note("the LoRA of adam-driver")
    with pytest.raises(OutOfMemory) as raised, _explained_memory("lora", tmp_path):
        raise error
    said = str(raised.value)
    assert said.startswith("stage lora, at the LoRA of adam-driver: out of memory")
    assert "lora.concepts_per_batch=1" in said and f"resume={tmp_path}" in said
    with pytest.raises(RuntimeError, match="another"), _explained_memory("lora", tmp_path):
        raise RuntimeError("another")
