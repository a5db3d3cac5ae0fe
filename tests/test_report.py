"""The pages and the terminal's table, made from run folders whole, half-done and hostile."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mace_exp.report.__main__ import main
from mace_exp.report.jobs import job_folders
from mace_exp.report.read_run import read_run
from mace_exp.report.run_page import command, write_report
from tests.fake_run import (
    ERASED,
    HOSTILE,
    make_failed_run,
    make_run,
    text_of,
    write_config,
    write_metrics,
    write_rows,
    write_status,
)
from tests.fake_sweep import make_sweep

PAGE_BYTES = 3_000_000


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "small", erased=ERASED[:2], each=1)


@pytest.fixture(scope="module")
def page(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


def test_headline_says_what_was_erased_from_what_and_how(page: str) -> None:
    text = text_of(page)
    assert "Ten people erased from the embedded model" in text
    assert all(name in text for name in ERASED)
    assert "LoRA of rank 4" in text and "anchor “a person”" in text
    assert "Harmonic mean 96.5" in text


def test_result_table_has_value_interval_original_and_difference(page: str) -> None:
    assert re.search(r"Erased .{0,40}2\.0 0\.6 to 7\.0 96\.0 −94\.0 100", text_of(page))
    assert re.search(r"Scenes .{0,20}93\.0 86\.3 to 96\.6 93\.0 ±0\.0 100", text_of(page))


def test_every_section_is_there(page: str) -> None:
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == [
        *("summary", "result", "members", "pictures", "attention"),
        *("masks", "training", "time", "settings", "origin"),
    ]
    assert re.findall(r'<a href="#(\w+)"', page) == ids


def test_command_versions_and_hardware_are_told(page: str) -> None:
    text = text_of(page)
    assert "python -m mace_exp concepts=celebrity_10 lora.rank=4" in text
    assert "torch 2.13.0" in text and "AMD EPYC 7763" in text


def test_curves_are_drawn_of_what_training_changes(page: str) -> None:
    labels = re.findall(r'class="axis" x="2" y="11">([^<]*)', page)
    assert labels == ["Training loss", "Gradient norm"]


def test_command_can_be_pasted() -> None:
    said = command({"command": ["python -m mace_exp", "concepts.names=[Adam Driver]"]})
    assert said == "python -m mace_exp 'concepts.names=[Adam Driver]'"
    assert command({"command": []}) == command({}) == ""


def test_page_is_self_contained_and_small(page: str) -> None:
    assert len(page.encode()) < PAGE_BYTES
    assert "default-src 'none'" in html.unescape(page)
    sources = re.findall(r'(?:src|href)="([^"#]{1,12})', page)
    assert {source[:5] for source in sources} == {"data:"}
    assert not re.search(r"url\(|@import|https?://", page)


def test_writing_again_changes_nothing(run_dir: Path, page: str) -> None:
    before = {path for path in run_dir.rglob("*")}
    assert write_report(run_dir).read_text(encoding="utf-8") == page
    assert {path for path in run_dir.rglob("*")} == before


def test_names_and_prompts_are_escaped(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, erased=[HOSTILE, '" onmouseover="alert(2)'], each=1)
    write_status(run_dir, {"status": "failed", "error": HOSTILE, "traceback": f"</pre>{HOSTILE}"})
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert HOSTILE not in page and "&lt;script&gt;alert(1)" in page
    assert page.count("<script>") == 1
    assert 'onmouseover="' not in page


def test_failed_run_shows_its_error_and_what_it_lacks(tmp_path: Path) -> None:
    text = text_of(write_report(make_failed_run(tmp_path)).read_text(encoding="utf-8"))
    assert "This run failed in stage cfr. ValueError: cfr: raise cfr.closeness" in text
    assert "Five people to be erased" in text
    assert "Sample pictures: none" in text and "no stage has" in text


@pytest.mark.parametrize(
    "lost",
    [
        "config.yaml",
        "status.json",
        "metrics.json",
        "metrics.jsonl",
        "samples/prompts.csv",
        "samples/after/0000.png",
        "attention/index.csv",
        "masks/index.csv",
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"{\xff broken: ["])
def test_missing_and_broken_files_leave_a_page(
    small_run: Path, tmp_path: Path, lost: str, content: bytes | None
) -> None:
    shutil.copytree(small_run, tmp_path, dirs_exist_ok=True)
    if content is None:
        (tmp_path / lost).unlink()
    else:
        (tmp_path / lost).write_bytes(content)
    assert write_report(tmp_path).stat().st_size > 10_000


def test_run_without_a_judge_shows_what_was_measured(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path, dirs_exist_ok=True)
    metrics = {
        "erased": {"pixel_change": 0.21},
        "distances": {"features": "pixels", "kept": {"frechet": 1.5, "n": 8}},
        "missing": ["no judge for this model"],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    text = text_of(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "Not measured: no judge for this model." in text
    assert "erased, pixel change 0.21" in text and "distances, kept, frechet 1.5" in text


def test_a_single_row_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"time": 0.0, "event": "stage"}\n', encoding="utf-8")
    assert "is not known" in text_of(write_report(tmp_path).read_text(encoding="utf-8"))


def test_a_hidden_folder_makes_no_sweep_of_a_run(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / ".hidden").mkdir()
    (run / ".hidden" / "config.yaml").write_text("seed: 0\n")
    assert job_folders(run) == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        write_report(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_a_folder_of_other_things_makes_no_sweep_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_failed_run(tmp_path / "stray")
    for name in ("one", "two"):  # of another program
        write_config(tmp_path / name, ERASED[:1], {})
    before = sorted(tmp_path.iterdir())
    assert main([str(tmp_path)]) == 2
    assert sorted(tmp_path.iterdir()) == before
    assert f"{tmp_path} is neither a run folder" in caplog.text
    assert main([str(tmp_path / "absent")]) == 2


@pytest.mark.parametrize("mark", ["jobs.json", "multirun.yaml", "2/status.json"])
def test_a_sweep_says_that_it_is_one_or_holds_two_runs(tmp_path: Path, mark: str) -> None:
    make_failed_run(tmp_path / "0")
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text("{}")
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").exists()


def test_large_pictures_stay_within_the_budget(tmp_path: Path) -> None:
    make_run(tmp_path, erased=ERASED, each=1)
    noise = Image.effect_noise((512, 512), 90).convert("RGB")
    for path in (tmp_path / "samples").glob("*/*.png"):
        noise.save(path, compress_level=1)
    page = write_report(tmp_path)
    assert page.stat().st_size < PAGE_BYTES


def test_hundred_concepts_stay_readable_and_small(tmp_path: Path) -> None:
    names = [f"Person {index}" for index in range(100)]
    make_run(tmp_path, erased=names, each=1)
    page = write_report(tmp_path)
    assert page.stat().st_size < PAGE_BYTES
    assert "100 people erased" in text_of(page.read_text(encoding="utf-8"))


def test_pictures_outside_the_run_are_not_shown(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", erased=ERASED[:1], each=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    table = run_dir / "samples" / "prompts.csv"
    table.write_text(table.read_text().replace("before/0000.png", "../../secret.png"))
    assert read_run(run_dir).samples[0].before is None


def test_nan_losses_are_left_out_of_the_curves(tmp_path: Path) -> None:
    make_run(tmp_path, erased=ERASED[:2], each=1)
    write_rows(tmp_path, ERASED[:2], steps=3)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        row = {"event": "lora", "concept": ERASED[0], "lora/step": 3, "lora/loss": "nan"}
        file.write(json.dumps(row) + "\n")
    assert "nan" not in re.findall(r'points="[^"]*', write_report(tmp_path).read_text())[0]


def test_command_line_writes_runs_and_sweeps(tmp_path: Path) -> None:
    make_run(tmp_path / "run", erased=ERASED[:2], each=1)
    make_sweep(tmp_path / "sweep")
    write_metrics(tmp_path / "sweep" / "0", ERASED[:5])
    command = [sys.executable, "-m", "mace_exp.report", "run", "sweep"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "sweep" / "report.html").exists()


def test_report_needs_neither_torch_nor_wandb() -> None:
    code = "import sys, mace_exp.report; print({'torch', 'wandb', 'hydra'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "set()", done.stderr
