"""Which files of a run folder are removed before other results take their place, and why."""

import logging
from pathlib import Path

import pytest

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.stale import forget_key, record_key, remove_stale
from tests.fake_run import make_run

KEYS = {"edit": "1", "samples": "2", "metrics": "3"}
STAGES = ("fusion", "samples", "metrics")
DRAWN = {"samples", "scores.csv"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a finished run."""
    found = RunFolder(make_run(tmp_path / "run", erased=["Amy Adams"], each=1))
    found.edit.write_bytes(b"edit")
    found.scores.write_text("scores")
    for name, key in KEYS.items():
        record_key(found, name, key)
    return found


@pytest.mark.parametrize(
    ("changed", "kept", "reason"),
    [
        ({}, {"edit.safetensors", "metrics.json", *DRAWN}, ""),
        ({"metrics": "4"}, {"edit.safetensors", *DRAWN}, "measured with other settings"),
        ({"samples": "4", "metrics": "4"}, {"edit.safetensors"}, "of other prompts"),
        ({"edit": "4", "samples": "4", "metrics": "4"}, set(), "of an earlier edit"),
    ],
)
def test_what_is_removed_and_why(
    folder: RunFolder,
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, str],
    kept: set[str],
    reason: str,
) -> None:
    with caplog.at_level(logging.INFO):
        remove_stale(folder, KEYS | changed, STAGES, edit_steps=["fusion"])
    there = {each.name for each in folder.root.iterdir()}
    assert there & {"edit.safetensors", "metrics.json", *DRAWN} == kept
    assert reason in caplog.text and bool(reason) == bool(caplog.messages)


def test_what_was_measured_again_is_told_from_what_is_of_another_edit(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    forget_key(folder, "metrics")  # as `python -m mace_exp.metrics` does
    with caplog.at_level(logging.INFO):
        remove_stale(folder, KEYS, STAGES, edit_steps=["fusion"])
    assert "measured with other settings: metrics.json" in caplog.text
    assert folder.scores.exists() and folder.samples.exists() and folder.edit.exists()
