"""The sweep's page in a real browser: what is chosen, filtered or brushed in one view is in all."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from mace_exp.report.sweep_page import write_sweep_report
from tests.chromium import Browser
from tests.fake_sweep import make_grid_sweep

VIEWS = (".jobs", ".parallel", ".scatter", "#tradeoff svg:not(.scatter)", ".sheet", ".stages")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep_report(make_grid_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    """The page with nothing chosen."""
    browser.open(page)
    browser.run("document.querySelector('#clear').click()")
    return browser


def column(browser: Browser, index: int) -> list[str]:
    rows = f"[...document.querySelectorAll('.jobs tr.job')].map(r => r.cells[{index}].dataset.key)"
    return browser.run(rows)


def jobs(browser: Browser, view: str, *, state: str = "") -> list[str]:
    """The jobs whose mark in a view has a class, in the order of their numbers."""
    marks = f"[...document.querySelectorAll(`{view} [data-job]{state}`)].map(m => m.dataset.job)"
    return sorted(browser.run(marks), key=int)


def shown(browser: Browser, view: str) -> list[str]:
    return jobs(browser, view, state=":not([hidden], .out)")


def wanted(browser: Browser, words: str) -> None:
    find = f"const f = document.querySelector('#find-jobs'); f.value = {words!r}"
    browser.run(f"{{ {find}; f.dispatchEvent(new Event('input')) }}")


def heading(browser: Browser, name: str) -> int:
    names = browser.run("[...document.querySelectorAll('.jobs thead th')].map(h => h.textContent)")
    return [found.replace("\u200b", "") for found in names].index(name)


def test_twenty_jobs_are_quiet_small_and_quick_to_open(browser: Browser, page: Path) -> None:
    """Half a second of the processor, scripts and layout included: five times what it takes."""
    assert page.stat().st_size < 3_000_000
    taken = []
    for _ in range(3):
        browser.open(page)
        assert browser.complaints() == []
        assert browser.requests() == [page.resolve().as_uri()]
        taken.append(browser.busy())
    assert 0 < statistics.median(taken) < 0.5


def test_work_of_a_page_is_measured_and_waiting_is_not(browser: Browser, tmp_path: Path) -> None:
    """So the limit above can be broken, and by the page alone."""
    busy = {}
    for name, script in (
        ("works", "let x = 0; for (let i = 0; i < 2e8; i++) x = (x + i) % 7; window.x = x"),
        ("waits", "setTimeout(() => { window.x = 0 }, 1000)"),
    ):
        page = tmp_path / f"{name}.html"
        page.write_text(f"<script>{script}</script>", encoding="utf-8")
        browser.open(page)
        while browser.run("window.x === undefined"):
            time.sleep(0.1)
        busy[name] = browser.busy()
    assert busy["works"] > 5 * busy["waits"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_sideways(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_best_job_is_chosen_at_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    best = browser.run("document.querySelector('.figures .kept small').textContent").split()[-1]
    assert [jobs(browser, view, state=".chosen") for view in VIEWS] == [[best]] * len(VIEWS)


def test_table_sorts_by_numbers_and_keeps_the_missing_last(opened: Browser) -> None:
    mean = heading(opened, "Harmonic mean")
    head = f"document.querySelectorAll('.jobs thead th button')[{mean}]"
    opened.run(f"{head}.focus()")
    opened.press("Enter")
    rising = column(opened, mean)
    opened.press("Enter")
    falling = column(opened, mean)
    assert rising[-1] == falling[-1] == ""
    assert [float(v) for v in rising[:-1]] == sorted(float(v) for v in rising[:-1])
    assert sorted(falling[:-1], key=float, reverse=True) == falling[:-1]
    assert opened.run(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"
    opened.run("document.querySelector('.jobs thead th button').click()")
    assert column(opened, 0) == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("failed", ["19"]),
        ("domain_weight>=1000", ["16", "17", "18", "19"]),
        ("rank=4 domain_weight<1", ["1", "3"]),
        ("erased>40", ["16", "18"]),
        ("no such words", []),
    ],
)
def test_filter_reaches_every_view(opened: Browser, words: str, left: list[str]) -> None:
    wanted(opened, words)
    assert shown(opened, ".jobs") == left
    assert opened.run("document.querySelector('#shown').textContent") == f"{len(left)} of 20 jobs"
    drawn = [job for job in left if job != "19"]  # failed before it drew anything
    for view in VIEWS[2:]:
        assert shown(opened, view) == drawn


def axis(browser: Browser, name: str) -> list[float]:
    """The middle of an axis and its two ends, in the window, once it has stopped scrolling."""
    browser.run("document.documentElement.style.scrollBehavior = 'auto'")
    scale = f"[...document.querySelectorAll('.scale')].find(s => s.textContent.includes('{name}'))"
    box = f"(b => [b.x + b.width / 2, b.top, b.bottom])({scale}.querySelector('.base')"
    places: list[list[float]] = []
    while len(places) < 3 or places[-1] != places[-3]:
        browser.run("document.querySelector('.parallel').scrollIntoView({block: 'center'})")
        places.append(browser.run(f"{box}.getBoundingClientRect())"))
        time.sleep(0.05)
    return places[-1]


def test_brushing_an_axis_keeps_the_jobs_that_pass(opened: Browser) -> None:
    x, top, bottom = axis(opened, "domain_weight")
    opened.drag((x, top - 4), (x, top + 0.3 * (bottom - top)))
    left = shown(opened, ".jobs")
    assert left == ["14", "15", "16", "17", "18", "19"]  # weights of 300 and above
    assert shown(opened, ".scatter") == left[:-1] and shown(opened, ".parallel") == left
    x, top, bottom = axis(opened, "rank")
    opened.drag((x, bottom - 10), (x, bottom + 4))
    assert shown(opened, ".jobs") == ["14", "16", "18"]
    opened.drag((x, top + 50), (x, top + 50))  # a click lets go
    assert shown(opened, ".jobs") == left
    opened.run("document.querySelector('#clear').click()")
    assert len(shown(opened, ".jobs")) == 20


def test_brushing_works_with_the_keyboard(opened: Browser) -> None:
    opened.run("[...document.querySelectorAll('.scale')].at(-1).focus()")
    for _ in range(10):
        opened.press("ArrowUp")
    half = shown(opened, ".jobs")
    assert 0 < len(half) < 19 and "18" in half and "1" not in half
    opened.press("Escape")
    assert len(shown(opened, ".jobs")) == 20


@pytest.mark.parametrize("view", VIEWS)
def test_choice_in_one_view_is_marked_in_all(opened: Browser, view: str) -> None:
    mark = f"document.querySelector(`{view} [data-job='8']`)"
    opened.run(f"(m => (m.tagName === 'TR' ? m.querySelector('.pick') : m).focus())({mark})")
    opened.press("Enter")
    assert [jobs(opened, each, state=".chosen.c0") for each in VIEWS] == [["8"]] * len(VIEWS)
    assert opened.run("document.querySelector('#chosen').textContent") == "8"
    opened.press("Enter")
    assert opened.run("document.querySelectorAll('.chosen').length") == 0


def test_chosen_jobs_have_colours_of_their_own(opened: Browser) -> None:
    pick = "document.querySelector(`.jobs [data-job='{}'] .pick`).click()"
    for job in range(7):
        opened.run(pick.format(job))
    assert jobs(opened, ".jobs", state=".chosen") == ["1", "2", "3", "4", "5", "6"]
    fill = "getComputedStyle(m.querySelector('circle')).fill"
    colours = opened.run(f"[...document.querySelectorAll('.scatter .chosen')].map(m => {fill})")
    assert len(set(colours)) == 6


def test_arrows_move_from_job_to_job(opened: Browser) -> None:
    """A view is one stop of Tab, however many jobs it has."""
    for view in VIEWS:
        stops = f"document.querySelectorAll(`{view} :is([data-job], [data-job] *)[tabindex='0']`)"
        assert opened.run(f"{stops}.length") == 1
    opened.run("document.querySelector('.sheet .pick').focus()")
    opened.press("ArrowDown")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    place = "(c => [c.parentNode.dataset.job, c.cellIndex])(document.activeElement.closest('td'))"
    assert opened.run(place) == ["1", 2]
    opened.run("document.querySelector('.scatter [data-job]').focus()")
    opened.run("document.querySelector(`.scatter [data-job='3']`).focus()")
    opened.press("ArrowDown")
    assert opened.run("document.activeElement.dataset.job") == "4"


def test_slider_goes_from_the_original_to_the_jobs_picture(opened: Browser) -> None:
    view = "document.querySelector(`.sheet [data-job='5'] .view`)"
    opened.run(f"{view}.focus()")
    opened.press("Enter")
    sources = "[...document.querySelectorAll('.compare img')].map(i => i.src)"
    original = "document.querySelector('.sheet .original img').src"
    assert opened.run(sources) == [
        opened.run(original),
        opened.run(f"{view}.querySelector('img').src"),
    ]
    told = "document.querySelector('dialog figcaption').textContent"
    assert "a photo of adam driver" in opened.run(told) and "job 5" in opened.run(told)
    opened.press("ArrowRight")
    cut = "document.querySelector('.compare').style.getPropertyValue('--cut')"
    assert opened.run(cut) == "51%"
    opened.press("ArrowDown")
    assert "job 6" in opened.run(told) and "a photo of adam driver" in opened.run(told)
    opened.press("n")
    assert "job 6" in opened.run(told) and "adriana lima" in opened.run(told)
    opened.press("Escape")
    assert opened.run("document.activeElement.closest('tr').dataset.job") == "6"


def test_only_chosen_jobs_are_in_the_sheet_when_asked(opened: Browser) -> None:
    opened.run("document.querySelector(`.jobs [data-job='2'] .pick`).click()")
    opened.run("document.querySelector('#only-chosen').click()")
    assert shown(opened, ".sheet") == ["2"]
    assert opened.run("document.querySelector('.sheet .original').checkVisibility()")


def test_further_measures_are_shown_when_asked(opened: Browser) -> None:
    cells = (
        "[...document.querySelectorAll('.jobs thead .further')].filter(c => c.checkVisibility())"
    )
    assert opened.run(f"{cells}.length") == 0
    opened.run("document.querySelector('#further').click()")
    assert opened.run(f"{cells}.length") == 6
