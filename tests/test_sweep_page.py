"""The page of a sweep: what varies, in which order, and who failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_run import HOSTILE, make_failed_run, make_sweep, text_of

from mace_exp.report import write_sweep_report
from mace_exp.report.jobs import job_folders, read_job, varying_settings


def test_sweep_page_shows_what_varies_and_who_failed(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "sweep")
    page = write_sweep_report(sweep_dir).read_text(encoding="utf-8")
    text = text_of(page)
    assert "Six jobs over preservation.domain_weight" in text
    assert "Job 10. ValueError: cfr: raise cfr.closeness" in text
    assert page.count('<tr class="job ') == 6 and page.count('<g class="job') == 5
    assert not re.search(r"https?://|<a href=\"[^#]", page)


def test_sweep_jobs_are_ordered_by_number(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    assert [path.name for path in job_folders(tmp_path)] == ["0", "1", "2", "3", "4", "10"]
    assert read_job(tmp_path / "10").status == "failed"


def test_only_differing_settings_vary() -> None:
    jobs = [{"a": 1, "b": 300, "resume": "x"}, {"a": 2, "b": 300.0, "resume": "y"}, {}]
    assert varying_settings(jobs) == ["a"]


def test_settings_that_go_together_take_one_column() -> None:
    jobs = [{"prior": w, "cfr.prior": float(w), "rank": w % 2} for w in (1, 2, 3)]
    assert varying_settings(jobs) == ["prior", "rank"]


def test_sweep_of_failed_jobs_has_a_page(tmp_path: Path) -> None:
    make_failed_run(tmp_path / "0", error=HOSTILE)
    page = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "Fewer than two jobs" in page and HOSTILE not in page


def test_sweep_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run folders"):
        write_sweep_report(tmp_path)
