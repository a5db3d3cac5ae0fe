"""Every command on every damaged file of a run's folder: one message, or it goes on without it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mace_exp.cli.arguments import expand
from mace_exp.cli.common import REFUSALS
from mace_exp.cli.sweep import close_sweep
from mace_exp.config import explain
from mace_exp.export import export
from mace_exp.report.__main__ import report
from mace_exp.rerun import main as rerun
from mace_exp.runs.folder import PLAN, RunFolder
from mace_exp.runs.manifest import changed_files
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
