"""`python -m mace_exp.check`: the refusals of a run alone, and what the run would do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mace_exp.check.__main__ import main
from mace_exp.check.found import settings_found
from mace_exp.check.text import file_lines, work_lines
from mace_exp.runs.work import FILE
from mace_exp.utils.files import write_json
from tests.composing import composed
from tests.pictures import disc, save
from tests.whole_run import PEOPLE, SMALL


def checked(
    capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0
) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] == (code == 0) and bool(found["problems"]) == (code != 0)
    return found


@pytest.fixture
def settings(tiny_folder: Path, people_run: Path) -> list[str]:
    """The settings of the run in `people_run`, with its cache."""
    model = ["model=path", f"model.source={tiny_folder}"]
    return [*model, *SMALL, PEOPLE, f"cache_dir={people_run.parent / 'cache'}"]


def made(found: dict[str, Any]) -> dict[str, int]:
    return {
        each["stage"]: sum(entry["made"] for entry in each["entries"])
        for each in found["work"]
        if each["entries"]
    }


def content(folder: Path) -> dict[Path, float]:
    """What the run itself logs to is this process's, too."""
    found = [path for path in folder.rglob("*") if path.name != "run.log"]
    return {path: path.stat().st_mtime for path in found}


def test_what_a_run_has_made_is_reused_and_a_change_makes_what_follows_it(
    settings: list[str], people_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(people_run.parent)
    known = checked(capsys, *settings)
    assert made(known) == dict.fromkeys(
        ("images", "masks", "preservation", "cfr", "lora", "samples"), 0
    )
    assert known["settings"]["concepts"] == {"person": 2}
    other = checked(capsys, *settings, "lora.rank=2")
    assert {stage for stage, count in made(other).items() if count} == {"lora", "samples"}
    assert made(other)["lora"] == 2, "a LoRA for each concept"
    pictures = other["pictures"] // 2
    assert made(other)["samples"] == pictures, "those of the original model are there"
    assert content(people_run.parent) == before, "nothing is written"


def test_times_are_those_that_were_measured_here(
    settings: list[str], people_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(people_run.parent / "cache", cache)
    [(machine, known)] = json.loads((cache / FILE).read_text()).items()
    units = {"sampling": 0.5, "lora": 2.0, "peak_memory_mb": 700}
    assert units.keys() < known.keys(), "the run has learned them"
    write_json(cache / FILE, {machine: units})
    settings = [*settings, f"cache_dir={cache}"]
    found = checked(capsys, *settings, "seed=7")
    seconds, pictures = times(found), found["pictures"]
    assert seconds["images"] == 0.5 * 2 * 2 * 2, "concepts x pictures x steps"
    assert seconds["lora"] == 2.0 * 2 * 3, "concepts x steps"
    assert seconds["samples"] == 0.5 * pictures / 2 * 2, "half of them are there"
    assert seconds["masks"] is None and found["memory"] == {"peak_memory_mb": 700}
    assert times(checked(capsys, *settings, "lora.steps=6"))["lora"] == 2.0 * 2 * 6
    assert times(checked(capsys, *settings))["lora"] == 0
    (cache / FILE).unlink()
    nowhere = checked(capsys, *settings, "seed=7")
    assert times(nowhere)["lora"] is None and nowhere["memory"] is None


def times(found: dict[str, Any]) -> dict[str, float | None]:
    return {each["stage"]: each["seconds"] for each in found["work"]}


def folder_of_images(root: Path) -> Path:
    folder = root / "cat"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (40, 40), "red").save(folder / name)
    for name in ("c.xyz", ".hidden", "notes.md", "more.md"):
        (folder / name).write_text("x")
    (folder / "prompts.csv").write_text("file,prompt\na.png,a cat\nb.jpg,the cat\n")
    (root / "dog").mkdir()
    (root / "cat mask").mkdir()
    return root


def test_files_are_counted_without_torch(tiny_folder: Path, tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "images")
    arguments = ["model=path", f"model.source={tiny_folder}", "images=folder"]
    arguments += [f"images.path={images}", "concepts=[cat]", "concepts.kind=object"]
    code = (
        "import sys; from mace_exp.check.__main__ import main\n"
        f"code = main({[*arguments, '--files', '--json']!r})\n"
        "sys.exit(9 if {'torch', 'diffusers'} & set(sys.modules) else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"]["by_suffix"] == {".jpg": 1, ".png": 1}
    assert found["images"]["read"] == found["images"]["with_a_prompt"] == 2
    assert found["images"]["unread_folders"] == ["dog"]
    left = found["images"]["left_out"]
    assert {kind: each["count"] for kind, each in left.items()} == {".md": 2, ".xyz": 1}
    assert found["model"]["weights"]["files"] == 3
    assert set(found["model"]["weights"]["bytes_by_type"]) >= {"F32"}
    assert "work" not in found and not list(tmp_path.glob("outputs"))
    said = "\n".join(file_lines(found))
    assert "1 .png, 1 .jpg" in said and "2 .md:" in said


def test_a_name_that_the_judge_does_not_know_is_told_with_a_known_one() -> None:
    config = composed("concepts=custom", "concepts.names=[Adam Drivr,Amy Adams]")
    found = settings_found(config)
    assert found["not_judged"] == {"Adam Drivr": "Adam Driver"}
    lines = [*file_lines({"settings": found, "model": {}, "images": {}, "captions": {}})]
    assert any("Adam Drivr (did you mean Adam Driver?)" in line for line in lines)


def test_masks_that_are_empty_or_cropped_away_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    for name, at in (("seen", 30), ("aside", 2), ("none", -90)):
        save(own / "cat" / f"{name}.png", np.zeros((20, 60, 3), dtype=bool))
        save(own / "cat mask" / f"{name}.png", disc(20, 60, at=(10, at), radius=4))
    settings = ["concepts=[cat]", "concepts.kind=object", "images=folder", f"images.path={own}"]
    found = checked(capsys, *settings, "masks=precomputed", "--files")
    names = [str(own / "cat mask" / name) for name in ("aside.png", "none.png")]
    assert found["images"]["empty_masks"] == names
    assert f"2, for which the whole image is used: {', '.join(names)}" in "\n".join(
        file_lines(found)
    )
    whole = checked(capsys, *settings, "masks=precomputed", "images.crop=none", "--files")
    assert whole["images"]["empty_masks"] == names[1:]
    assert checked(capsys, *settings, "masks=none", "--files")["images"]["empty_masks"] == []


def test_it_refuses_what_a_run_refuses_in_the_same_words(
    tiny_folder: Path, tmp_path: Path, refusal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (
        ["model=path", f"model.source={tiny_folder / 'unet'}"],
        ["lora.rnak=4"],
        ["images=folder", f"images.path={tmp_path / 'none'}"],
    ):
        said = refusal(*wrong).removeprefix("mace_exp: ")
        assert "\n".join(checked(capsys, *wrong, "--files", code=2)["problems"]) == said
    for sweep in (["-m", "lora.rank=1,4"], ["sweep=seeds"]):
        assert "one job" in checked(capsys, *sweep, code=2)["problems"][0]
    assert main([*wrong, "--files"]) == 2
    assert capsys.readouterr().err.startswith("python -m mace_exp.check: images.path")


def test_what_only_the_model_tells_is_refused_too(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = checked(capsys, *settings, "lora.rank=1000", code=2)
    assert "lora.rank" in found["problems"][0]


def test_sentences_that_are_not_written_yet_are_not_asked_for(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asks = ["prompts=llm", "prompts.base_url=http://127.0.0.1:9/v1", "prompts.model=none"]
    found = checked(capsys, *settings, *asks, "prompts.key_env=null")
    assert found["work"] is None and "language model" in "\n".join(work_lines(found))


def test_settings_of_a_folder_and_the_table(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\nlora: {rank: 2}\n")
    own = ["--config-dir", str(tmp_path), "experiment=own"]
    assert main([*settings, *own]) == 0
    table = capsys.readouterr().out.splitlines()
    [lora] = [line.split() for line in table if line.strip().startswith("lora")]
    assert lora[:4] == ["lora", "2", "0", "LoRAs"] and "minute" in lora
    assert table[-1].startswith("The run can start")


def test_captions_are_counted_by_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions.csv"
    file.write_text("id,caption\n1,a cat\n2,\n3,a dog\n")
    given = ("preservation=captions", f"preservation.prior.file={file}", "--files")
    found = checked(capsys, *given, "preservation.domain.captions=[a man]")
    assert found["captions"]["prior"] == {
        **{"templates": 0, "given": 0},
        **{"file": str(file), "read": 2, "without": 1},
    }
    assert found["captions"]["domain"] == {"templates": 1000, "given": 1}
    said = "\n".join(file_lines(found))
    assert f"2 of {file} (1 rows without)" in said and "1000 from templates, 1 of the" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cache_dir=/dev/null", "cache_dir = /dev/null can't be written to (Not a directory)"),
        ("hydra.run.dir=/dev/null/x", "hydra.run.dir = /dev/null/x can't be written to"),
        ("-m seed=1,2", "a sweep checks all its jobs before the first begins"),
        ("sweep=seeds", "give the settings of one job, or resume=SWEEP/NUMBER"),
        ("--cfg job", "--cfg is a flag of python -m mace_exp, not of the check"),
    ],
)
def test_what_a_run_would_refuse_beside_its_settings_is_told(
    given: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in checked(capsys, *given.split(), "--files", code=2)["problems"][0]
    assert not any(tmp_path.iterdir()), "nothing is written"


def test_pictures_of_an_edit_need_one(
    settings: list[str], people_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*settings, "stages=[samples]", "fusion.closeness=50")
    [problem] = checked(capsys, *given, code=2)["problems"]
    assert "a new run folder holds none: add fusion, which makes it, or give resume=RUN" in problem
    checked(capsys, *given, f"hydra.run.dir={people_run}")


def test_a_model_is_not_downloaded_by_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mace_exp.check.work.load_model", None)
    found = checked(capsys, "model=path", "model.source=a/b", "model.allow_download=true")
    assert found["work"] is None and "once the model is downloaded" in found["unknown"]
