"""Every command on every damaged file of a run's folder: one message, or it goes on without it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from mace_exp.attack import run_settings
from mace_exp.cli.arguments import expand
from mace_exp.cli.common import REFUSALS
from mace_exp.cli.revision import read_revision
from mace_exp.cli.sweep import close_sweep
from mace_exp.compare import compared
from mace_exp.config import explain
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.scores import ScoredPictures, Scores
from mace_exp.export import export
from mace_exp.metrics import remeasure
from mace_exp.report.__main__ import report
from mace_exp.rerun import main as rerun
from mace_exp.runs.folder import PLAN, RunFolder
from mace_exp.runs.manifest import changed_files, record_files
from mace_exp.runs.stale import recorded_keys, remove_stale
from mace_exp.runs.status import status_of
from tests.fake_run import make_run

DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a number": b"3",
    "a list": b"[1, {}]",
    "an object": b'{"status": [], "metrics": 1, "jobs": {"a": 1}, "hydra": [], "arguments": {}}',
    "odd values": b'{"arguments": [1, null, {}], "jobs": [1], "started": 7, "finished": {}}',
    "nested": b"[" * 1_200,
    "no text": b"\xff\xfe\x00\x80",
    "no YAML": b"a: [\n\tb: *c",
    "half a letter": b'{"error": "\\ud800", "status": "failed", "arguments": ["\\ud800=1"]}',
}
FILES = (
    *("config.yaml", "status.json", "metrics.json", "metrics.jsonl", "keys.json", "manifest.json"),
    *("samples/prompts.csv", "samples/after/0000.png", "masks/index.csv", "erased.json"),
)
OF_A_SWEEP = ("multirun.yaml", PLAN, "0/config.yaml", "0/status.json", "0/metrics.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, small."""
    folder = make_run(tmp_path_factory.mktemp("whole") / "run", erased=["Amy Adams"], each=1)
    (folder / "erased.json").write_text(json.dumps({"model": {"fingerprint": "0"}}))
    (folder / "edit.safetensors").write_bytes(b"")
    return folder


def commands(folder: Path) -> list[Callable[[], object]]:
    run = RunFolder(folder)
    return [
        lambda: expand([f"resume={folder}"]),
        lambda: report(folder),
        lambda: export(folder, folder / "exported"),
        lambda: status_of(run),
        lambda: changed_files(run, ["metrics.json", "samples"]),
        lambda: recorded_keys(run).get("edit"),
    ]


@pytest.fixture
def attempt(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[], object], Path], None]:
    """Run a command that may refuse: in one message, which names the file."""

    def attempted(command: Callable[[], object], folder: Path) -> None:
        try:
            command()
        except REFUSALS as error:
            said = explain(error)
            assert str(folder) in said and "\n" not in said, type(error)

    return attempted


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_of_a_run_ends_no_command_in_a_traceback(
    whole: Path, attempt: Callable[..., None], file: str
) -> None:
    path = whole / file
    known = path.read_bytes() if path.exists() else None
    try:
        for content in DAMAGES.values():
            path.write_bytes(content[:600] if path.suffix == ".yaml" else content)
            for command in commands(whole):
                attempt(command, whole)
    finally:
        path.unlink()
        if known is not None:
            path.write_bytes(known)


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


WAYS = (gone, a_folder, a_link_to_nothing, a_link_to_itself, cut, a_bit_flipped)


def first_of_each_kind(folder: Path) -> list[Path]:
    """Return the files of a folder, of several pictures in one folder the first."""
    found: dict[object, Path] = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.suffix if path.suffix == ".png" else path.name
        found.setdefault((path.parent, name), path.relative_to(folder))
    return [*found.values()]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_whatever_becomes_of_a_file_no_command_ends_in_a_traceback(
    whole: Path, attempt: Callable[..., None], tmp_path: Path, way: Callable[[Path], None]
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    write_scores(shutil.copytree(whole, other))
    files = first_of_each_kind(other)
    assert len(files) > 12
    for file in files:
        shutil.copytree(other, run)
        way(run / file)  # a message that names no file fails, too
        for command in (
            lambda: remeasure(run, {}),
            lambda: compared([other, run]),
            lambda: run_settings(run),
            lambda: read_revision([f"from={run}", "drop=[Amy Adams]"]),
            lambda: export(run, run / "exported"),
            lambda: report(run),
        ):
            attempt(command, run)
        shutil.rmtree(run)


def test_scores_that_the_run_did_not_write_are_not_measured(whole: Path, tmp_path: Path) -> None:
    """Without its last lines the file is one: of fewer pictures."""
    run = RunFolder(tmp_path / "run")
    write_scores(shutil.copytree(whole, run.root))
    record_files(run, [run.scores.name])
    lines = run.scores.read_text().splitlines(keepends=True)
    run.scores.write_text("".join(lines[:-1]))
    for command in (lambda: remeasure(run.root, {}), lambda: compared([run.root, run.root])):
        with pytest.raises(ValueError, match=r"scores\.csv is not what the run wrote"):
            command()


def write_scores(folder: Path) -> None:
    """Write the scores that the metrics of a folder are measured from."""
    prompts = [EvaluationPrompt("erased", "Amy Adams", "a photo of Amy Adams", 0, "Amy Adams")]
    unknown = np.full(1, np.nan)
    scores = Scores(
        subject=["Amy Adams"],
        subject_probability=np.ones(1),
        subject_rank=np.ones(1),
        scene=[""],
        expected_scene=[""],
        scene_probability=unknown,
        scene_rank=unknown,
        person=np.ones(1),
        text_image=unknown,
        pixel_change=np.zeros(1),
        subject_classes=unknown,
        scene_classes=unknown,
        perceptual=unknown,
    )
    ScoredPictures(prompts, scores, scores, "mini").write(folder / "scores.csv")


@pytest.mark.parametrize("file", OF_A_SWEEP)
def test_a_damaged_file_of_a_sweep_ends_no_command_in_a_traceback(
    attempt: Callable[..., None], tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    make_run(tmp_path / "0", erased=["Amy Adams"], each=1)
    overrides = {"hydra": {"overrides": {"hydra": [], "task": ["seed=1,2"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(overrides))
    (tmp_path / PLAN).write_text(json.dumps({"jobs": [["seed=1"], ["seed=2"]]}))
    for content in DAMAGES.values():
        (tmp_path / file).write_bytes(content[:600] if file.endswith(".yaml") else content)
        for command in (
            lambda: expand([f"resume={tmp_path}"]),
            lambda: expand([f"resume={tmp_path / '0'}"]),
            lambda: report(tmp_path),
            lambda: close_sweep(tmp_path),
        ):
            attempt(command, tmp_path)
        if file == "multirun.yaml":
            with pytest.raises(SystemExit) as stopped:
                rerun([str(tmp_path)])
            assert stopped.value.code == 2


def test_damaged_keys_make_everything_stale(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for content in DAMAGES.values():
        folder.keys.write_bytes(content)
        folder.metrics.write_text("{}")
        remove_stale(folder, {"edit": "new"}, ["fusion"], edit_steps=["fusion"])
        assert not folder.metrics.exists()
