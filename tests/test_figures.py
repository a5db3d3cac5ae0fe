"""The charts for papers: PDF and SVG, from run folders alone, the same each time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mace_exp.report.__main__ import main
from mace_exp.report.figures import _names_on_front, write_figures
from mace_exp.report.scatter import Point
from tests.fake_run import HOSTILE, make_failed_run, make_run
from tests.fake_sweep import make_sweep

pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
NAMES = ["Adam Driver", HOSTILE, "a $ and $b_"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), erased=NAMES, each=1)


def named(files: list[Path]) -> set[str]:
    return {path.stem for path in files if path.suffix == ".svg"}


def test_run_charts_say_what_the_page_says(run_dir: Path) -> None:
    files = write_figures(run_dir)
    parts = ("erased", "preserved", "objects", "styles", "scenes")
    assert named(files) == {
        *("result", "training-loss", "training-grad_norm"),
        *(f"concepts-{part}" for part in parts),
    }
    assert {path.suffix for path in files} == {".pdf", ".svg"}
    assert all(path.read_bytes()[:5] == b"%PDF-" for path in files if path.suffix == ".pdf")
    chart = (run_dir / "figures" / "concepts-erased.svg").read_text(encoding="utf-8")
    assert "Adam Driver" in chart and "a $ and $b_" in chart
    assert HOSTILE not in chart and "&lt;script&gt;" in chart


def test_drawing_again_changes_nothing(run_dir: Path) -> None:
    first = {path: path.read_bytes() for path in write_figures(run_dir)}
    assert {path: path.read_bytes() for path in write_figures(run_dir)} == first


def test_sweep_charts(tmp_path: Path) -> None:
    files = write_figures(make_sweep(tmp_path))
    assert named(files) == {"tradeoff", "parallel", "loss", "time"}
    chart = (tmp_path / "figures" / "parallel.svg").read_text(encoding="utf-8")
    assert "domain_weight" in chart and "Harmonic mean" in chart
    legend = (tmp_path / "figures" / "loss.svg").read_text(encoding="utf-8")
    assert "job 3: domain_weight 300, closeness 0.1, rank 4" in legend


def test_jobs_with_equal_rates_share_one_label() -> None:
    places = {"0": 1.0, "1": 1.0, "2": 0.9}
    points = [Point(name, "", 1.0, y, on_front=True) for name, y in places.items()]
    points.append(Point("3", "", 1.0, 1.0))
    assert [*_names_on_front(points).values()] == [["0", "1"], ["2"]]


def test_nothing_is_drawn_of_a_run_that_measured_nothing(tmp_path: Path) -> None:
    assert write_figures(make_failed_run(tmp_path)) == []


def test_command_draws_when_asked(run_dir: Path) -> None:
    assert main([str(run_dir), "--figures"]) == 0
    assert (run_dir / "report.html").exists() and (run_dir / "figures" / "result.pdf").exists()


def test_missing_matplotlib_is_told(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(run_dir), "--figures"]) == 2
    assert "pip install 'mace-exp[figures]'" in caplog.text
