"""Every command on every damaged file of a run's folder: one message, or it goes on without it."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mace_exp.attack import run_settings
from mace_exp.check.__main__ import main as check
from mace_exp.cli import job
from mace_exp.cli.arguments import expand
from mace_exp.cli.common import REFUSALS
from mace_exp.cli.revision import read_revision
from mace_exp.cli.sweep import close_sweep
from mace_exp.compare import compared
from mace_exp.config.refusals import explain
from mace_exp.export import export
from mace_exp.metrics import remeasure
from mace_exp.report.__main__ import report
from mace_exp.report.terminal import print_result
from mace_exp.rerun import main as rerun
from mace_exp.runs.folder import PLAN, RunFolder
from mace_exp.runs.manifest import changed_files, record_files
from mace_exp.runs.stale import recorded_keys, remove_stale
from mace_exp.runs.status import status_of
from mace_exp.utils.errors import reading
from tests.fake_run import make_run
from tests.fake_scores import write_scores

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
    for file in folder.rglob("*.png"):  # encoded in each of a thousand reports; nobody looks at it
        with Image.open(file) as picture:
            small = picture.resize((8, 8))
        small.save(file)
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


def checked(folder: Path) -> None:
    """Run `check` with the settings of a folder; it prints what it refuses."""
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        code = check([f"resume={folder}", "--files"])
    said = error.getvalue()
    assert code == 0 or (code == 2 and str(folder) in said and said.count("\n") == 1), said


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
        for number, content in enumerate(DAMAGES.values()):
            path.write_bytes(content[:600] if path.suffix == ".yaml" else content)
            for command in commands(whole):
                attempt(command, whole)
            if file == "config.yaml" and number % 3 == 0:  # all that it reads there; it takes long
                checked(whole)
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


ODD: dict[str, tuple[str, Callable[[str], str]]] = {
    "a list of settings": ("config.yaml", lambda text: "concepts: [a, b]"),
    "no kind": ("config.yaml", lambda text: "concepts: {names: [a], kind: 2020-01-01}"),
    "kinds that are a text": ("config.yaml", lambda text: "concepts: {names: [a], kinds: x}"),
    "names that are none": ("config.yaml", lambda text: "concepts: {names: {a: 1}}"),
    "a text of settings": ("config.yaml", lambda text: "{evaluation: x, judge: y, lora: 1}"),
    "a threshold of text": ("config.yaml", lambda text: "evaluation: {threshold: high}"),
    "metrics of numbers": ("config.yaml", lambda text: "evaluation: {metrics: [1, 2]}"),
    "arguments that are nested": ("config.yaml", lambda text: "arguments: [[a=b], {c: d}]"),
    "a time that is none": ("status.json", lambda text: '{"started": 7, "finished": [1]}'),
    "a time of no zone": (
        "status.json",
        lambda text: '{"started": "2020-01-01", "finished": "2020-01-01T00:00:00+00:00"}',
    ),
    "a clock that was put back": (
        "status.json",
        lambda text: '{"started": "2021-01-01T00:00:00", "finished": "2020-01-01T00:00:00"}',
    ),
    "a number that is none": ("metrics.json", lambda text: '{"erased": {"subject": NaN}}'),
    "a number beyond all": ("metrics.json", lambda text: '{"erased": 1e999}'),
    "rates that are lists": ("metrics.json", lambda text: '{"before": [1], "after": {"a": [[]]}}'),
    "no seconds": ("metrics.jsonl", lambda text: '{"event": "stage", "seconds": [1], "stage": {}}'),
    "a step that is text": ("metrics.jsonl", lambda text: '{"event": "lora", "lora/step": "x"}'),
    "a name of zeros": ("masks/index.csv", lambda text: "concept,phase,file\na,b,c\0d\n"),
    "a name of 300 bytes": ("samples/prompts.csv", lambda text: f"before,after\n{'a' * 300},b\n"),
    "columns that are missing": ("samples/prompts.csv", lambda text: "x\n1,2,3\n"),
    "scores of no number": ("scores.csv", lambda text: text.replace("1.0", "high")),
    "scores beyond all": ("scores.csv", lambda text: text.replace("1.0", "1e999")),
    "a summary of nothing": ("summary.json", lambda text: '{"accounting": {"stages": [{}]}}'),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_in_a_file_end_no_command_in_a_traceback(
    whole: Path, attempt: Callable[..., None], tmp_path: Path, name: str
) -> None:
    sweep = tmp_path / "sweep"
    for number in "0", "1":
        write_scores(shutil.copytree(whole, sweep / number))
    run, (file, changed) = sweep / "0", ODD[name]
    known = (run / file).read_text() if (run / file).is_file() else ""
    (run / file).write_text(changed(known))
    for command in (
        *commands(run),
        lambda: remeasured(run),
        lambda: compared([run, sweep / "1"]),
        lambda: run_settings(run),
        lambda: read_revision([f"from={run}", "drop=[Amy Adams]"]),
        lambda: report(sweep),
        lambda: close_sweep(sweep),
    ):
        attempt(command, run.parent)


def remeasured(run: Path) -> None:
    with reading(run):  # as the command does
        remeasure(run, {})
        print_result(run)


@pytest.mark.parametrize("file", OF_A_SWEEP)
def test_a_damaged_file_of_a_sweep_ends_no_command_in_a_traceback(
    attempt: Callable[..., None], tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(job, "job", lambda: sys.exit(0))  # which Hydra begins the jobs in
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
        with pytest.raises(SystemExit) as stopped:
            rerun([str(tmp_path)])
        refused = stopped.value.code == 2 and str(tmp_path) in str(stopped.value)
        assert refused or (stopped.value.code == 0 and file != "multirun.yaml")


def test_damaged_keys_make_everything_stale(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for content in DAMAGES.values():
        folder.keys.write_bytes(content)
        folder.metrics.write_text("{}")
        remove_stale(folder, {"edit": "new"}, ["fusion"], edit_steps=["fusion"])
        assert not folder.metrics.exists()
