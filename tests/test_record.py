"""The rows of a run, and the code that it ends with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mace_exp.runs.interrupts import exit_code, stopped_by
from mace_exp.runs.record import ConceptCurves, RunRecord, flatten, number, plain, read_rows


def test_record_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"time": 40.0, "event": "lora"}\n{"time": 41.0, "ev', encoding="utf-8")
    record = RunRecord(path)
    record.write("lora", {"lora/loss": float("nan"), "where": tmp_path})
    record.close()
    rows = read_rows(path)
    assert [row["event"] for row in rows] == ["lora", "lora"]
    assert rows[1]["time"] >= 40.0 and np.isnan(float(rows[1]["lora/loss"]))


def test_values_become_what_json_holds() -> None:
    assert plain({"a": np.float32(0.5), "b": (np.arange(2), None)}) == {
        "a": 0.5,
        "b": [[0, 1], None],
    }
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a/b/c": 1, "d": 2}
    assert number("inf") == float("inf") and number("x") is None and number(True) is None


def test_curves_tell_ends_and_quantiles() -> None:
    curves = ConceptCurves()
    for concept, offset in (("a", 0.0), ("b", 1.0), ("c", 5.0)):
        for step in range(2):
            curves.add(concept, step, {"loss": offset + step})
    columns, rows = curves.table()
    assert columns == ["concept", "steps", "first loss", "last loss"]
    assert rows[2] == ["c", 2, 5.0, 6.0]
    assert dict(curves.quantiles())[1] == {"loss/low": 1, "loss/median": 2, "loss/high": 6}
    assert curves.last() == {"final_loss": 2}


def test_exit_codes() -> None:
    assert [exit_code(error) for error in (None, ValueError(), KeyboardInterrupt())] == [0, 1, 130]
    assert [exit_code(SystemExit(code)) for code in (143, None, "text")] == [143, 0, 1]
    assert stopped_by(SystemExit(143)) == "stopped by SIGTERM"
    assert not any(map(stopped_by, (SystemExit(0), SystemExit("text"), ValueError())))
