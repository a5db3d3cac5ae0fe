"""Where the time of a run went: one table in summary.json, report and terminal."""

import math
from pathlib import Path

import pytest

from mace_exp.report.read_run import read_run
from mace_exp.report.run_page import run_view, stages
from mace_exp.runs.accounting import accounting
from tests.test_terminal import shown
from tests.whole_run import read, rows

LORA = {"stage": "lora", "seconds": 30.0, "entries_made": 7, "entries_reused": 3, "reused": False}
MASKS = {"stage": "masks", "seconds": 10.0, "entries_reused": 10, "reused": True}


def test_every_second_of_a_run_is_in_the_table(people_run: Path) -> None:
    found = read(people_run / "summary.json")["accounting"]
    assert [each["stage"] for each in found["stages"]] == [
        each["stage"] for each in rows(people_run, "stage")
    ]
    inside = sum(each["seconds"] for each in found["stages"])
    assert inside + found["other_seconds"] == pytest.approx(found["seconds"], abs=0.01)
    shares = sum(each["share"] for each in found["stages"])
    assert shares == pytest.approx(inside / found["seconds"], abs=1e-3)
    by_stage = {each["stage"]: each for each in found["stages"]}
    assert by_stage["lora"]["entries_made"] == 2 and by_stage["lora"]["entries_reused"] == 0
    assert all(each["peak_memory_mb"] > 0 for each in found["stages"])


def test_made_and_reused_are_those_of_the_summary(people_run: Path) -> None:
    summary = read(people_run / "summary.json")
    for key in ("made", "reused"):
        counted = sum(each[f"entries_{key}"] for each in summary["accounting"]["stages"])
        assert counted == sum(summary[key].values())


def test_of_a_stage_that_ran_twice_the_last_time_counts() -> None:
    again = LORA | {"seconds": 2.0}
    found = accounting([LORA, MASKS, again])
    assert [(each["stage"], each["seconds"]) for each in found["stages"]] == [
        ("lora", 2.0),
        ("masks", 10.0),
    ]
    assert found["seconds"] == 12.0 and "other_seconds" not in found


@pytest.mark.parametrize("seconds", [None, "nan", "soon", math.inf, True])
def test_a_damaged_row_counts_nothing(seconds: object) -> None:
    (found,) = accounting([LORA | {"seconds": seconds}], 0.0)["stages"]
    assert found["seconds"] <= 1 and math.isfinite(found["share"])


def test_terminal_and_report_say_it_too(people_run: Path, tmp_path: Path) -> None:
    said = shown(people_run, 100)
    rows_of = {line.split()[0]: line for line in said.splitlines() if line.split()}
    assert "2 made" in rows_of["lora"] and "MB" in rows_of["lora"]
    assert "loading, checks" in said
    view = run_view(read_run(people_run))
    lora = next(each for each in view["stages"] if each["name"] == "lora")
    assert lora["entries"] == "2 made"
    assert view["other_seconds"] == read(people_run / "summary.json")["accounting"]["other_seconds"]


def test_a_bar_is_measured_by_the_longest_stage_a_share_by_all() -> None:
    found = stages([{"event": "stage", **row} for row in (LORA, MASKS)])
    assert [(each["share"], each["length"]) for each in found] == [(75.0, 100.0), (25.0, 33.3)]
    assert [each["entries"] for each in found] == ["7 made, 3 reused", "10 reused"]
