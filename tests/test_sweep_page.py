"""The page of a sweep: what varies, in which order, and who failed."""

from __future__ import annotations

import random
import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mace_exp.report.charts import Scale
from mace_exp.report.contact_sheet import sheet
from mace_exp.report.job_table import stage_table
from mace_exp.report.jobs import (
    Job,
    job_folders,
    job_settings,
    label,
    read_job,
    varying_settings,
)
from mace_exp.report.metrics_view import Estimate
from mace_exp.report.parallel import CHARACTER, Axis, _heading, measure_axis, setting_axis
from mace_exp.report.read_run import RunContents
from mace_exp.report.scatter import Point, place_names
from mace_exp.report.sweep_page import write_sweep_report
from tests.fake_run import (
    ERASED,
    HOSTILE,
    make_failed_run,
    make_run,
    text_of,
    write_config,
    write_samples,
)
from tests.fake_sweep import make_sweep


def test_sweep_page_shows_what_varies_and_who_failed(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "sweep")
    page = write_sweep_report(sweep_dir).read_text(encoding="utf-8")
    text = text_of(page)
    assert "Six jobs over preservation.domain_weight" in text
    assert "Job 10. ValueError: cfr: raise cfr.closeness" in text
    jobs_of = {view: _jobs(page, view) for view in ("jobs", "parallel", "scatter", "stages")}
    assert jobs_of["jobs"] == jobs_of["parallel"] == {"0", "1", "2", "3", "4", "10"}
    assert jobs_of["scatter"] == jobs_of["stages"] == {"0", "1", "2", "3", "4"}
    assert not re.search(r"https?://|<a href=\"[^#]", page)


def _jobs(page: str, view: str) -> set[str]:
    """The jobs marked in the table or chart of that class."""
    found = re.search(rf'<(table|svg) class="[^"]*\b{view}".*?</\1>', page, flags=re.S)
    return set(re.findall(r'data-job="(\w+)"', found[0])) if found else set()


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    first = write_sweep_report(tmp_path).read_bytes()
    assert write_sweep_report(tmp_path).read_bytes() == first


def test_names_prompts_and_job_folders_are_escaped(tmp_path: Path) -> None:
    for number in range(2):
        make_run(tmp_path / f'{number}"><u>', erased=[HOSTILE], each=1, **{"lora.rank": number})
    page = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert HOSTILE not in page and HOSTILE.lower() not in page and "&lt;script&gt;" in page
    assert page.count("<script>") == 1 and '"><u>' not in page


def test_page_reads_without_script(tmp_path: Path) -> None:
    """Every number, chart and picture is there; what needs the script hides itself."""
    make_run(tmp_path / "0", erased=ERASED[:1], each=1)
    make_run(tmp_path / "1", erased=ERASED[:1], each=1, **{"lora.rank": 8})
    page = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    body = page[page.index("<body>") : page.index("<script>")]
    assert body.count('src="data:image/webp') > 20
    assert re.findall(r'class="tools sticky js-only"|class="hint js-only"', body)
    assert "text image score" in body and "0.31" in body  # further measures


def test_large_pictures_stay_within_the_budget(tmp_path: Path) -> None:
    first = tmp_path / "0"
    write_config(first, ERASED[:2], {})
    write_samples(first, ERASED[:2], each=1)
    Image.effect_noise((256, 256), 90).save(tmp_path / "noise.png", compress_level=1)
    for file in (first / "samples").glob("*/*.png"):
        shutil.copy(tmp_path / "noise.png", file)
    for number in range(1, 20):
        shutil.copytree(first, tmp_path / str(number))
    assert 1_500_000 < write_sweep_report(tmp_path).stat().st_size < 3_000_000


def drawn(path: Path, names: list[str], changes: dict[str, Any]) -> Job:
    write_config(path, names, changes)
    write_samples(path, names, each=1)
    return read_job(path)


def test_sheet_shows_what_the_jobs_share_first(tmp_path: Path) -> None:
    few, many = (drawn(tmp_path / str(n), ERASED[-n:], {}) for n in (2, 10))
    found = sheet([many, few])
    assert found
    erased = [h.prompt for h in found.headings if h.part == "Erased"]
    assert erased[:2] == [f"a photo of {name.lower()}" for name in ERASED[-2:]]
    assert len(erased) == 6 and found.total > len(found.headings)
    row = found.rows[2]
    assert (
        row.job is few and [pair is not None for pair in row.pairs[:6]] == [True] * 2 + [False] * 4
    )


def test_jobs_with_other_originals_have_a_row_of_their_own(tmp_path: Path) -> None:
    guidance = {0: 4.0, 1: 7.5, 2: 4.0}
    jobs = [
        drawn(tmp_path / str(n), ERASED[:1], {"sampling.guidance": g}) for n, g in guidance.items()
    ]
    found = sheet(jobs)
    assert found
    order = [(row.group, row.job.name if row.job else None) for row in found.rows]
    assert order == [(0, None), (0, "0"), (0, "2"), (1, None), (1, "1")]


def axis(key: str, values: list[Any]) -> Axis:
    """The axis of one setting over jobs that have nothing else."""
    run = RunContents(Path(), {}, {}, {}, [], [], [], [])
    return setting_axis(key, [Job(run, {key: v}, None, {}, {}, [], []) for v in values])


def test_few_values_are_spaced_evenly_and_in_order() -> None:
    found = axis("lora.rank", [16, 1, 4])
    assert found.at == [1.0, 0.0, 0.5]
    assert [text for _, text in found.ticks] == ["1", "4", "16"]
    assert axis("masks.kind", ["whole", "attention"]).at == [1.0, 0.0]


def test_many_values_that_span_magnitudes_are_on_a_logarithmic_axis() -> None:
    found = axis("weight", [0.1 * 2**power for power in range(11)])
    assert found.at == pytest.approx([power / 10 for power in range(11)])
    assert [text for _, text in found.ticks] == ["0.1", "1", "10", "100"]


def test_axis_of_erased_is_turned_over() -> None:
    shares = [Estimate("", value) for value in (0.0, 0.5)]
    assert measure_axis("Erased", shares).at == [1.0, 0.0]
    assert measure_axis("Objects", [*shares, None]).at == [0.0, 1.0, None]
    assert measure_axis("Objects", shares[:1] * 2).at == [0.5, 0.5]


def test_names_in_the_scatter_never_cover_a_mark_or_each_other() -> None:
    places_of = random.Random(0).uniform
    crowd = [Point(str(i), "", places_of(0.8, 1), places_of(0.7, 1), i < 5) for i in range(60)]
    x, y = Scale(0.8, 1.1, 40, 500), Scale(0.7, 1.0, 320, 26)
    places = place_names(crowd, x, y)
    found = [(places[p.job], p) for p in crowd if places[p.job]]
    assert 20 < len(found) < 60
    boxes = []
    for (left, base, anchor), p in found:  # type: ignore[misc]
        width = 7.0 * len(p.job)
        boxes.append((left - (width if anchor == "end" else 0), base - 8, width))
    apart = [
        a[0] + a[2] <= b[0] + 1 or b[0] + b[2] <= a[0] + 1 or abs(a[1] - b[1]) >= 11
        for a, b in combinations(boxes, 2)
    ]
    assert all(apart)


def test_stages_share_one_scale_and_tell_what_was_reused(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    names, rows = stage_table([read_job(tmp_path / name) for name in ("0", "10")])
    assert names[:2] == ["images", "masks"] and len(rows) == 1
    cells = dict(zip(names, rows[0][1], strict=True))
    assert cells["masks"].reused and not cells["lora"].reused
    assert cells["samples"].share == 100 and cells["images"].share == 20


def test_sweep_jobs_are_ordered_by_number(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    assert [path.name for path in job_folders(tmp_path)] == ["0", "1", "2", "3", "4", "10"]
    assert read_job(tmp_path / "10").status == "failed"


def test_only_differing_settings_vary() -> None:
    jobs = [{"a": 1, "b": 300, "resume": "x"}, {"a": 2, "b": 300.0, "resume": "y"}, {}]
    assert varying_settings(jobs) == ["a"]


def test_a_setting_of_a_single_concept_is_told_from_the_runs(tmp_path: Path) -> None:
    for number, own in enumerate(({}, {"ship": {"lora.rank": 2}}, {"ship": {"lora.rank": 4}})):
        write_config(tmp_path / str(number), ["ship"], {"overrides": own})
    jobs = [read_job(tmp_path / str(number)) for number in range(3)]
    varying = varying_settings([job.settings for job in jobs])
    assert varying == ["overrides.ship.lora.rank"]
    assert label(jobs[2], varying) == "job 2: ship.lora.rank 4"


def test_settings_that_go_together_take_one_column() -> None:
    jobs = [{"prior": w, "cfr.prior": float(w), "rank": w % 2} for w in (1, 2, 3)]
    assert varying_settings(jobs) == ["prior", "rank"]


def test_of_a_swept_option_the_keys_that_follow_from_it_are_left_out() -> None:
    """They are null in jobs with another option, or have its default."""
    chosen = (("uce", {"ridge": 0.5}), ("gates", {"rank": 4}), ("gates", {"rank": 1}))
    jobs = [
        job_settings({"method": keys, "reads": [name], "options": {"method": name}})
        for name, keys in chosen
    ]
    assert varying_settings(jobs[:2]) == ["method"]
    assert varying_settings(jobs) == ["method", "method.rank"], "swept beside it"


def test_titles_of_many_axes_do_not_overlap() -> None:
    axis = Axis("Preserved people", "", [], [])
    assert _heading(axis, 200) == ("tick", "", "Preserved people")
    assert _heading(axis, 80) == ("name", "Preserved", "people")
    _, group, title = _heading(Axis("null_threshold", "method.", [], []), 80)
    assert max(map(len, (group, title))) * CHARACTER <= 80


def test_sweep_of_failed_jobs_has_a_page(tmp_path: Path) -> None:
    make_failed_run(tmp_path / "0", error=HOSTILE)
    page = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "Fewer than two jobs" in page and HOSTILE not in page


def test_sweep_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run folders"):
        write_sweep_report(tmp_path)
