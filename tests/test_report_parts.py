"""What the pages are put together from: galleries, thumbnails, measures, charts, formatting."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mace_exp.report import formatting
from mace_exp.report.charts import intervals, thinned, ticks
from mace_exp.report.galleries import galleries
from mace_exp.report.metrics_view import Estimate, harmonic_mean, read_parts
from mace_exp.report.pictures import Thumbnails
from mace_exp.report.read_run import RunContents, read_run
from mace_exp.report.scatter import Point, pareto
from tests.fake_run import AFTER, ERASED, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunContents:
    return read_run(make_run(tmp_path_factory.mktemp("run")))


def test_every_concept_has_its_turn_in_the_pictures(run: RunContents) -> None:
    found = galleries(run.samples)
    assert [gallery.key for gallery in found] == [*AFTER, "general"]
    first = [pair.sample.concept for pair in found[0].pairs[: len(ERASED)]]
    assert first == ERASED
    assert [pair.state for pair in found[0].pairs].count("miss") == 1
    assert {pair.state for pair in found[1].pairs} == {"hit"}
    assert {pair.state for pair in found[-1].pairs} == {""}


def test_thumbnails_are_paid_for_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (400, 200), "red").save(path)
    thumbnails = Thumbnails(10_000)
    uri = thumbnails.uri(path)
    left = thumbnails._remaining
    assert uri and uri.startswith("data:image/webp;base64,")
    assert thumbnails.uri(path) == uri and thumbnails._remaining == left
    assert thumbnails.uri(None) is None


def test_parts_read_intervals_members_and_further_measures(run: RunContents) -> None:
    parts = read_parts(run.metrics)
    assert [part.key for part in parts] == list(AFTER)
    assert parts[0].accuracy and parts[0].accuracy.difference == pytest.approx(-0.94)
    values = [member.value for member in parts[0].worst_first()]
    assert values == sorted(values, reverse=True)
    assert parts[1].further[0].name == "text image score"


def test_harmonic_mean_may_be_a_number_or_an_estimate() -> None:
    assert harmonic_mean({"harmonic_mean": 0.5}) == 0.5
    assert harmonic_mean({"harmonic_mean": {"value": 0.5, "low": 0.4}}) == 0.5
    assert harmonic_mean({"harmonic_mean": None}) is None


def test_chart_rows_are_told_in_words() -> None:
    chart = intervals([Estimate("<b>", 0.25, 0.1, 0.5, 40, 0.9)], "gone")
    assert "&lt;b&gt;: 25.0 % (10.0 to 50.0 %); original 90.0 %, n = 40" in chart


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(0.0, 3.7) == [0, 1, 2, 3]
    assert ticks(2.0, 2.0) == [2.0]


def test_thinned_curves_keep_their_mean() -> None:
    line = [(float(i), float(i * i)) for i in range(1000)]
    short = thinned(line, 100)
    assert len(short) == 100
    assert sum(y for _, y in short) / 100 == pytest.approx(sum(y for _, y in line) / 1000)


def test_pareto_front_is_what_nothing_beats() -> None:
    points = [Point(str(i), "", *xy) for i, xy in enumerate([(1, 0), (0, 1), (0, 0), (1, 0)])]
    assert [p.on_front for p in pareto(points)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (formatting.signed_percent(-0.0004), "±0.0"),
        (formatting.signed_percent(-0.021), "−2.1"),
        (formatting.percent(float("nan")), "–"),
        (formatting.duration(372.0), "6 min 12 s"),
        (formatting.duration(7800), "2 h 10 min"),
        (formatting.megabytes(2180.0), "2.18 GB"),
        (formatting.counted(1, "style"), "One style"),
        (formatting.counted(4, "explicit"), "Four explicit concepts"),
        (formatting.counted(14, ""), "14 concepts"),
        (formatting.listed(["a", "b", "c"]), "a, b and c"),
        (formatting.setting([1.0, None, True]), "1, null, true"),
    ],
)
def test_numbers_as_words(said: str, expected: str) -> None:
    assert said == expected
