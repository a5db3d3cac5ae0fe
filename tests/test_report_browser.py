"""The pages in a real browser: quiet, self-contained, usable with mouse and keyboard."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import write_sweep_report
from mace_exp.report.terminal import print_result
from tests.chromium import Browser
from tests.fake_run import (
    HOSTILE,
    make_run,
    write_config,
    write_metrics,
    write_rows,
    write_samples,
    write_status,
)
from tests.fake_sweep import make_sweep

TEXT = "document.querySelector('{}').textContent"


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ["Adam Driver", "Adriana Lima", HOSTILE]
    return write_report(make_run(tmp_path_factory.mktemp("run"), erased=names, each=2))


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep_report(make_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="module")
def mass_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a thousand concepts, of which a hundred were drawn."""
    folder = tmp_path_factory.mktemp("mass")
    names = [f"Person {number:04}" for number in range(1000)]
    write_config(folder, names, {})
    write_status(folder, {"status": "finished", "stage": "report", "error": None})
    write_metrics(folder, names)
    write_rows(folder, names)
    write_samples(folder, names[:100], 1)
    return write_report(folder)


def test_a_thousand_concepts_stay_readable(browser: Browser, mass_page: Path) -> None:
    """In size and in processor time; each concept can be found, by its name."""
    assert mass_page.stat().st_size < 3e6
    browser.open(mass_page)
    assert browser.busy() < 1, "seconds of the processor until it is shown"
    assert browser.run("document.querySelectorAll('#training polyline.each').length") <= 300
    assert browser.run(
        "document.querySelector('#members').textContent.match(/Person 0/g).length > 900"
    )
    assert browser.run("document.querySelector('#training .caption').textContent").count(
        "100 of 1000"
    )
    written = StringIO()
    print_result(mass_page.parent, Console(width=100, file=written, force_terminal=False))
    assert written.getvalue().count("\n") < 20, "parts, not concepts"


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
    browser.run("document.querySelector('.gallery .view').focus()")
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


def test_attention_goes_from_before_to_after(browser: Browser, run_page: Path) -> None:
    browser.open(run_page)
    phases = "[...document.querySelector('.strips .view').children].map(p => p.textContent)"
    assert browser.run(phases) == ["before", "step 25", "after"]
    browser.run("document.querySelector('.strips .view').click()")
    shown = "[...document.querySelectorAll('.compare img')].map(i => i.alt.split(':')[0])"
    assert browser.run(shown) == ["attention before", "attention after"]
