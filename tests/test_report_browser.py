"""The pages in a real browser: quiet, self-contained, usable with mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, find_chromium
from fake_run import HOSTILE, make_run, make_sweep

from mace_exp.report import write_report, write_sweep_report

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(PROGRAM), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ["Adam Driver", "Adriana Lima", HOSTILE]
    return write_report(make_run(tmp_path_factory.mktemp("run"), erased=names, each=2))


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep_report(make_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
def test_pages_are_quiet_and_fit(
    browser: Browser, run_page: Path, sweep_page: Path, width: int, dark: bool
) -> None:
    """No error, no request but for the file, nothing that sticks out sideways."""
    for page in (run_page, sweep_page):
        browser.open(page, width=width, dark=dark)
        assert browser.complaints() == []
        assert browser.requests() == [page.resolve().as_uri()]
        assert browser.run("document.documentElement.scrollWidth") <= width
        paper = browser.run("getComputedStyle(document.documentElement).backgroundColor")
        assert (paper < "rgb(1") == (dark is False) or paper.startswith("rgb(21") == dark


def test_names_never_become_markup(browser: Browser, run_page: Path) -> None:
    browser.open(run_page)
    assert browser.run("document.scripts.length") == 1
    assert HOSTILE in browser.run("document.querySelector('main').textContent")


def test_every_picture_is_decoded(browser: Browser, run_page: Path) -> None:
    browser.open(run_page)
    broken = "[...document.querySelectorAll('main img')].filter(i => i.complete && !i.naturalWidth)"
    assert browser.run(f"{broken}.length") == 0
    assert browser.run("document.querySelectorAll('main img').length") > 50


def test_slider_works_with_the_keyboard(browser: Browser, run_page: Path) -> None:
    browser.open(run_page)
    browser.run("document.querySelector('.pair .view').focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('dialog').open")
    assert browser.run("document.activeElement.type") == "range"
    first = browser.run("document.querySelector('dialog .prompt').textContent")
    browser.press("ArrowRight")
    cut = "document.querySelector('.compare').style.getPropertyValue('--cut')"
    assert browser.run(cut) == "51%"
    browser.press("n")
    assert browser.run("document.querySelector('dialog .prompt').textContent") != first
    browser.press("Escape")
    assert not browser.run("document.querySelector('dialog').open")
    assert browser.run("document.activeElement.className") == "view"


def test_pictures_are_found_by_words_and_by_misses(browser: Browser, run_page: Path) -> None:
    browser.open(run_page)
    shown = "[...document.querySelectorAll('.pair')].filter(p => p.checkVisibility()).length"
    everything = browser.run(shown)
    find = "const f = document.querySelector('#find-pictures'); f.value = 'script'"
    browser.run(f"{{ {find}; f.dispatchEvent(new Event('input')) }}")
    found = browser.run("[...document.querySelectorAll('.gallery .pair:not([hidden])')].length")
    assert 0 < found < everything
    browser.run("document.querySelector('#misses').click()")
    missed = browser.run("[...document.querySelectorAll('.gallery .pair:not([hidden])')].length")
    assert missed == browser.run("document.querySelectorAll('.gallery .pair.miss').length") == 1


def column(browser: Browser, index: int) -> list[str]:
    rows = f"[...document.querySelectorAll('tr.job')].map(r => r.cells[{index}].dataset.key)"
    return browser.run(rows)


def test_sweep_sorts_by_numbers_and_keeps_the_missing_last(
    browser: Browser, sweep_page: Path
) -> None:
    browser.open(sweep_page)
    names = browser.run("[...document.querySelectorAll('thead th')].map(h => h.textContent)")
    mean = names.index("Harmonic mean")
    head = f"document.querySelectorAll('thead th button')[{mean}]"
    browser.run(f"{head}.focus()")
    browser.press("Enter")
    rising = column(browser, mean)
    browser.press("Enter")
    falling = column(browser, mean)
    assert rising[-1] == falling[-1] == ""
    assert [float(v) for v in rising[:-1]] == sorted(float(v) for v in rising[:-1])
    assert falling[:-1] == rising[-2::-1]
    assert browser.run(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"
    browser.run("document.querySelector('thead th button').click()")
    assert column(browser, 0) == ["0", "1", "2", "3", "4", "10"]


def test_sweep_filter_and_choice_reach_every_view(browser: Browser, sweep_page: Path) -> None:
    browser.open(sweep_page)
    find = "const f = document.querySelector('#find-jobs'); f.value = 'failed'"
    browser.run(f"{{ {find}; f.dispatchEvent(new Event('input')) }}")
    assert browser.run("document.querySelectorAll('tr.job:not([hidden])').length") == 1
    browser.run("document.querySelector('svg [data-job=\"3\"]').focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('tr.chosen').dataset.job") == "3"
    assert browser.run("document.querySelectorAll('.chosen').length") == 2
    browser.press("Enter")
    assert browser.run("document.querySelectorAll('.chosen').length") == 0
