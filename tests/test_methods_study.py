"""The study of all methods: its runs are accepted, and its table holds what they measured."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.methods.measure import COLUMNS, ERASED, METHODS, Job, table, write_results
from mace_exp.config import composed_run


@pytest.mark.parametrize(
    ("method", "erase"),
    [(method, "celebrity_10") for method in METHODS] + [("uce", erase) for erase in ERASED],
)
def test_every_run_is_accepted(method: str, erase: str) -> None:
    job = Job(method, erase, 1, "quick", 6)
    given = job.arguments(Path("anywhere"))
    config = composed_run(*(a for a in given[2:] if not a.startswith(("hydra.", "kept="))))
    assert config.method.name == method and config.seed == 1
    assert given[:2] == ["--config-dir", given[1]] and (Path(given[1]) / "kept").is_dir()


def test_the_table_has_a_row_per_finished_run_and_part(tmp_path: Path) -> None:
    jobs = [Job("mace", "celebrity_10", 0, "quick", 6), Job("uce", "celebrity_10", 0, "quick", 6)]
    rate = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 40, "original": 1.0}
    finish(tmp_path / jobs[0].name, {"erased": {"accuracy": rate}, "harmonic_mean": 0.8})
    write_results(tmp_path / "results.csv", jobs, tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    named = ["mace", "celebrity_10", "0", "quick", "6"]
    assert rows == [
        [*named, "erased", "0.25", "0.1", "0.5", "40", "1.0", "12.5", "2.0"],
        [*named, "harmonic_mean", "0.8", "", "", "", "", "12.5", "2.0"],
    ]
    write_results(tmp_path / "results.csv", jobs[1:], tmp_path)  # none of these is finished
    *_, line = table(tmp_path / "results.csv")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == [*named, "25.0 (10 to 50)"] and cells[-4:] == ["80.0", "", "12.5", "2.0"]


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write what the study reads of a finished run: ten seconds for the edit, none for pictures."""
    folder.mkdir(parents=True)
    stages = [("cfr", 2.5, 1024), ("lora", 10, 2048), ("samples", 99, 4096)]
    lines = [
        json.dumps({"event": "stage", "stage": name, "seconds": s, "peak_memory_mb": mb})
        for name, s, mb in stages
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "status.json").write_text(json.dumps({"status": "finished"}), encoding="utf-8")
