"""Two commands that write at once, and places that can't be written to: what is there stays whole,
and a message names the place and what to do."""

import errno
import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from mace_exp.cli.refusal import Refusal
from mace_exp.cli.sweep import close_sweep
from mace_exp.config.refusals import explain
from mace_exp.metrics import remeasure
from mace_exp.runs.folder import LOCK
from mace_exp.utils.files import atomic_file, atomic_folder, new_entry, write_text
from tests.fake_run import make_run
from tests.fake_scores import write_scores


def write(path: Path, *, folder: bool, text: str) -> None:
    if folder:
        path.mkdir()
    write_text(path / "a" if folder else path, text)


@pytest.mark.parametrize("folder", [False, True])
def test_a_new_entry_has_its_name_when_it_is_whole(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "deep" / "new.txt"
    with new_entry(target) as temporary:
        target.parent.mkdir()
        write(temporary, folder=folder, text="made")
        assert not target.exists()
    assert (target / "a" if folder else target).read_text() == "made"
    assert [*target.parent.iterdir()] == [target]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_a_name_that_another_has_taken_meanwhile_is_left_to_it(
    tmp_path: Path, folder: bool, theirs: bool
) -> None:
    target = tmp_path / "new"
    with pytest.raises(ValueError, match="new exists: another command wrote it meanwhile"):
        with new_entry(target) as temporary:
            write(temporary, folder=folder, text="ours")
            write(target, folder=theirs, text="theirs")
    assert (target / "a" if theirs else target).read_text() == "theirs"
    assert [*tmp_path.iterdir()] == [target]


def test_a_file_system_without_links_gets_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with new_entry(tmp_path / "a") as temporary:
        temporary.write_text("made")
    assert (tmp_path / "a").read_text() == "made" and len([*tmp_path.iterdir()]) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    for folder in (False, True):
        with pytest.raises(KeyboardInterrupt), new_entry(tmp_path / "new") as temporary:
            write(temporary, folder=folder, text="half")
            raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


def test_scores_are_not_measured_again_while_a_run_writes_its_own(tmp_path: Path) -> None:
    """Both would change manifest.json, of which one change would be lost."""
    run = make_run(tmp_path / "run", erased=["Amy Adams"], each=1)
    write_scores(run)
    (run / "metrics.json").write_text("{}")
    with FileLock(run / LOCK), pytest.raises(ValueError, match="run = .*run is in use"):
        remeasure(run, {})
    assert (run / "metrics.json").read_text() == "{}" and not (run / "manifest.json").exists()
    remeasure(run, {})
    assert json.loads((run / "metrics.json").read_text()) and (run / "manifest.json").exists()


@pytest.mark.parametrize(
    "number, remedy",
    [
        (errno.EROFS, "name a place that can be written to"),
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "change its permissions"),
    ],
)
@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder, new_entry])
def test_an_error_of_a_temporary_file_names_the_file_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, atomic: object, number: int, remedy: str
) -> None:
    with pytest.raises(OSError) as raised, atomic(tmp_path / "mine.txt") as temporary:  # type: ignore[operator]
        failed = OSError(number, os.strerror(number), str(temporary))

        def unlink(*_: object, **__: object) -> None:  # of nothing, where nothing can be written
            raise failed

        monkeypatch.setattr(Path, "unlink", unlink)
        raise failed
    said = explain(raised.value)
    assert said.startswith(f"{tmp_path / 'mine.txt'}: ") and remedy in said and "Errno" not in said


def test_a_full_disk_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Exit status 1, with what to do; at the end of a sweep it costs the report alone."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert Refusal(full).code == 1 and "make room" in str(Refusal(full))
    assert Refusal(ValueError("a mistake")).code == 2

    def no_room(_: Path) -> Path:
        raise full

    monkeypatch.setattr("mace_exp.cli.sweep.write_sweep_report", no_room)
    make_run(tmp_path / "0", erased=["Amy Adams"], each=1)
    assert close_sweep(tmp_path), "its job has finished"
    assert "could not be written: [Errno 28]" in caplog.text and "Traceback" not in caplog.text
