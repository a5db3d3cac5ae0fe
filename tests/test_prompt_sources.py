"""Templates of the user's own: what a line must be, and that a run trains on them alone."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from mace_exp.concepts.captions import read_templates
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import evaluation_prompts
from mace_exp.data.prompts.file import FilePrompts, file_prompts
from tests.composing import composed
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read

CAT = Concept("cat", Kind.object, "sky")
UP_TO_CFR = "stages=[images,masks,preservation,cfr]"


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def settings(file: Path, count: int) -> FilePrompts:
    return FilePrompts(path=str(file), count=count)


def test_templates_keep_the_numbers_of_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "a  photo of {}", "", " {} at night ")
    assert read_templates(file) == {1: "a photo of {}", 3: "{} at night"}
    file.write_bytes(b"\xef\xbb\xbfa photo of {}\r\n")
    assert read_templates(file) == {1: "a photo of {}"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}", "", "a photo"], "line 3, 'a photo': write {} once"),
        (["{} and {}"], "line 1, '{} and {}': write {} once"),
        (["{}", "{} in {0}"], "line 2"),
        (["{}", "{} in a }"], "no other brace"),
        (["", " "], "holds none"),
        (["{}", "a {}"], "holds 2, prompts.count = 3 asks for more: .* prompts.count=2"),
        (["{}", "{}s", "a {}"], "line 2, 'cats': it must name 'cat' once"),
        (["{}", "a {}", "a Cat and a {}"], "line 3, 'a Cat and a cat': it must name 'cat' once"),
        (["{}", "a {}", "A portrait of a {}"], "line 3, .*evaluation=none"),
    ],
)
def test_a_line_that_cannot_be_trained_on_is_named(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    file = write(tmp_path / "a.txt", *lines)
    chosen = settings(file, 3)
    pattern = message.replace("{", r"\{").replace("}", r"\}")
    with pytest.raises(ValueError, match=pattern):
        file_prompts(CAT, chosen, measured=["a portrait of a cat"])
    [problem] = chosen.concept_problems(CAT, evaluation_prompts(CAT.name, CAT.kind, 2))
    assert problem.startswith(f"prompts.path = {file}: templates {file}")


def test_sentences_of_the_evaluation_may_be_trained_on_where_there_is_none(tmp_path: Path) -> None:
    chosen = settings(write(tmp_path / "a.txt", "a portrait of a {}"), 1)
    assert list(chosen.concept_problems(CAT, evaluation_prompts(CAT.name, CAT.kind, 2)))
    assert list(chosen.concept_problems(CAT, [])) == []


def test_only_the_lines_that_are_taken_are_looked_at(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "a {}", "the {}", "the {}s of a cat")
    assert file_prompts(CAT, settings(file, 2)) == ["a cat", "the cat"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_is_none_is_refused_at_once(
    refusal: Callable[..., str], tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "own.txt"
    if content is not None:
        file.write_bytes(content)
    message = refusal("prompts=file", f"prompts.path={file}")
    assert message.startswith(f"mace_exp: prompts.path = {file}: templates {file} can't be read")
    assert message.count("\n") == 0


def test_there_may_be_more_of_them_than_of_the_projects_own(tmp_path: Path) -> None:
    file = write(tmp_path / "own.txt", *(f"{{}} in room {number}" for number in range(200)))
    config = composed("prompts=file", f"prompts.path={file}", "prompts.count=200")
    assert config.prompts == settings(file, 200)


def test_a_run_trains_on_the_users_sentences_and_again_when_they_change(
    run: Run, tmp_path: Path
) -> None:
    file = write(
        tmp_path / "own.txt", "a photo of {} in a hat", "{} by a door", "{} reading", "x {}"
    )
    command = [PEOPLE, "prompts=file", f"prompts.path={file}", "prompts.count=3"]
    folder = run("first", *command, f"stages={UP_TO_FUSION}")
    with (folder / "prompts.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["prompt"] for row in rows[:3]] == [
        "a photo of Adam Driver in a hat",
        "Adam Driver by a door",
        "Adam Driver reading",
    ]
    assert len(rows) == 6 and {row["source"] for row in rows} == {"file"}
    summary = read(folder / "summary.json")
    assert (summary["made"]["images"], summary["prompt_fallbacks"]) == (2, 0)
    command[2] = f"prompts.path={file.rename(tmp_path / 'renamed.txt')}"
    again = run("again", *command, f"stages={UP_TO_FUSION}")
    assert read(again / "summary.json")["made"] == {}
    write(tmp_path / "renamed.txt", "a photo of {} in a hat", "{} by a window", "{} reading")
    changed = run("changed", *command, f"stages={UP_TO_FUSION}")
    made = read(changed / "summary.json")["made"]
    assert (made["images"], made["loras"]) == (2, 2)


def test_a_sentence_that_is_too_long_is_refused_before_images_are_drawn(
    run: Run, tmp_path: Path
) -> None:
    long = " ".join(["in the park"] * 40)
    file = write(tmp_path / "own.txt", "{} in a coat", "{} in a boat", f"{{}} {long}")
    with pytest.raises(SystemExit, match="in the park in the park"):
        run("long", PEOPLE, "prompts=file", f"prompts.path={file}", UP_TO_CFR)
    assert not (tmp_path / "long").exists()
