"""The last lines of a run on a terminal, one of 80 columns too."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from mace_exp.report.terminal import print_result
from tests.fake_run import make_failed_run, make_run


def shown(run_dir: Path, width: int) -> str:
    screen = io.StringIO()
    print_result(run_dir, Console(file=screen, width=width))
    return screen.getvalue()


def test_terminal_table_says_result_and_places(tmp_path: Path) -> None:
    lines = shown(make_run(tmp_path / "one"), 160)
    assert re.search(r"Erased ↓ +2\.0 +0\.6 to 7\.0 +96\.0 +−94\.0 +100", lines)
    assert re.search(r"harmonic mean +96\.5", lines)
    assert str(tmp_path / "one" / "samples") in lines


def test_a_path_is_one_line_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "a folder of a name far longer than others" / ("one" * 12))
    assert f"  samples   {run / 'samples'}\n" in shown(run, 80)
    monkeypatch.chdir(tmp_path)
    assert f"  samples   {run.relative_to(tmp_path) / 'samples'}\n" in shown(run, 80)


def test_a_part_takes_one_line_of_eighty_columns(tmp_path: Path) -> None:
    lines = shown(make_run(tmp_path / "one"), 80).splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    (preserved,) = [line for line in lines if "Preserved" in line]
    assert preserved.rstrip().endswith("100") and "people ↑" in preserved.casefold()


def test_terminal_says_what_could_not_be_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    (run / "metrics.json").write_text(json.dumps({"missing": ["no judge for this model"]}))
    assert "  no judge for this model" in shown(run, 160)


def test_terminal_says_nothing_of_what_is_not_there(tmp_path: Path) -> None:
    assert "Erased" not in shown(make_failed_run(tmp_path / "[red]"), 160)
