"""`judge=command`: a recogniser as a program; whatever it does wrong is one clear message."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.evaluate import measure_pictures
from mace_exp.evaluation.judges.base import PERSON, SUBJECT, JudgeError, JudgeTask
from mace_exp.evaluation.judges.command import CommandJudge
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.recognisers.process import NOTHING, read_answers, run_command
from mace_exp.evaluation.schema import Choice
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.record import Tracker
from mace_exp.runs.result import Result
from mace_exp.stages.metrics import measure
from mace_exp.stages.sample_files import SuiteSamples
from tests.composing import composed
from tests.whole_run import read, read_table

SUBJECTS = {"Person A": Kind.person, "Person B": Kind.person}
BRIGHT = """
import csv, sys
from PIL import Image
print("file,class,probability")
for row in csv.DictReader(sys.stdin):
    mean = sum(Image.open(row["file"]).convert("L").resize((1, 1)).getdata())
    if mean > 200:
        print(row["file"] + ",person-a,0.9")
        print(row["file"] + ",Person_B,0.1")
    elif mean > 100:
        print(row["file"] + ",Somebody Else,0.6")
    else:
        print(row["file"] + ",,")
"""
HEADER = "file,class,probability\n"


def adapter(folder: Path, text: str) -> str:
    """Write an adapter and return the command that runs it."""
    file = folder / "adapter with space.py"
    file.write_text(text, encoding="utf-8")
    return f"'{sys.executable}' -I '{file}'"


def judge_of(command: str, **changes: Any) -> CommandJudge:
    settings: dict[str, Any] = dict(command=command, classes=None, finds_faces=True, timeout=60.0)
    return CommandJudge(**(settings | changes))


def grey(*levels: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


def suite(count: int) -> list[EvaluationPrompt]:
    names = [("Person A", "Person B")[i % 2] for i in range(count)]
    return [
        EvaluationPrompt("erased", each, f"a photo of {each}", i, each)
        for i, each in enumerate(names)
    ]


def test_classes_and_probabilities_are_read_as_they_are_written(tmp_path: Path) -> None:
    judge = judge_of(adapter(tmp_path, BRIGHT)).open(JudgeTask(SUBJECTS, "cpu"))
    found = judge.probabilities(grey(255, 150, 0, 255))[SUBJECT]
    names = judge.classes[SUBJECT]
    assert names == (NOTHING, "Person A", "Person B", "Somebody Else")
    assert found.tolist() == [[0, 0.9, 0.1, 0], [0, 0, 0, 0.6], [1, 0, 0, 0], [0, 0.9, 0.1, 0]]
    assert judge.persons(grey(255, 150, 0)).tolist() == [1, 1, 0]


def measured(command: str, **changes: Any) -> dict:
    config = judge_of(command, **changes)
    found, notes = RunJudge(config, SUBJECTS).judge_pictures(
        suite(4),
        grey(255, 255, 255, 255),
        grey(255, 150, 0, 0),
        Choice([], 0.0, None),
        device="cpu",
        specificity="preserved",
    )
    metrics = ["accuracy", "persons", "pixel_change", "distances"]
    return measure_pictures(found, metrics, notes=notes, further=config.metrics()).metrics


def test_a_class_that_nobody_expected_is_no_recognition(tmp_path: Path) -> None:
    found = measured(adapter(tmp_path, BRIGHT))["erased"]
    assert (found["accuracy"]["value"], found["accuracy"]["original"]) == (0.25, 0.5)
    assert found["persons"]["value"] == 0.5
    assert found["accuracy_with_face"]["value"] == 0.5 and found["accuracy_with_face"]["n"] == 2


def test_names_that_it_does_not_know_are_left_out_where_they_are_listed(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("PERSON A\n", encoding="utf-8")
    config = judge_of("true", classes=str(names))
    assert config.unknown_subjects(SUBJECTS) == ["Person B"]
    found = measured(adapter(tmp_path, BRIGHT), classes=str(names))
    assert found["erased"]["accuracy"]["n"] == 4  # the program names Person B all the same
    silent = adapter(tmp_path, BRIGHT.replace("Person_B", "person-a"))
    found = measured(silent, classes=str(names))
    assert found["erased"]["accuracy"]["n"] == 2
    assert "the judge does not know 'Person B' (erased)" in found["missing"]


def test_whether_it_finds_faces_is_said_by_its_key() -> None:
    assert judge_of("true").answers() == {SUBJECT, PERSON}
    other = judge_of("true", finds_faces=False)
    assert other.answers() == {SUBJECT} and not other.metrics()


FILES = ["/a/0.png", "/a/1.png"]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (b"", "line 1 of its output is 'nothing', not file,class,probability"),
        (b"Using TensorFlow backend.\n", "line 1 of its output is 'Using TensorFlow backend.'"),
        (b"\xff\xfe\x00", "line 1 of its output can't be read as UTF-8"),
        (b"H/a/0.png,a\n", "line 2 of its output has 2 cells, not 3"),
        (b"H/a/0.png,a,0.5\n/b/1.png,a,0.5\n", "line 3 of its output names '/b/1.png', which is"),
        (b"H/a/0.png,a,high\n", "line 2 of its output has the probability 'high', which is no"),
        (b"H/a/0.png,a,1.5\n", "line 2 of its output has the probability 1.5, not one from 0 to 1"),
        (b"H/a/0.png,a,nan\n", "line 2 of its output has the probability nan"),
        (b"H/a/0.png,a,inf\n", "line 2 of its output has the probability inf"),
        (b"H/a/0.png,a,-0\n/a/1.png,a,-1e-9\n", "line 3 of its output has the probability -1e-09"),
        (b"H/a/0.png,a,0,9\n", "line 2 of its output has 4 cells, not 3"),
        (b"file;class;probability\n", "line 1 of its output is 'file;class;probability'"),
        (
            "file,class,probability\n".encode("utf-16"),
            "line 1 of its output can't be read as UTF-8",
        ),
        (b"H/a/0.png,\xe9,1\n", "line 1 of its output can't be read as UTF-8"),
        (b'H/a/0.png,"a,1\n/a/1.png,b,1\n', "line 2 of its output has 2 cells, not 3"),
        (b"H" * 2, "line 2 of its output has 1 cells, not 3"),
        (b"H" + HEADER.encode(), "line 2 of its output names 'file', which is none of the files"),
        (b"H/a/0.png,a,0.5\n", "line 2 of its output is the last, and 1 of 2 files have none"),
    ],
)
def test_rubbish_is_refused_with_its_line_and_what_is_expected(output: bytes, said: str) -> None:
    with pytest.raises(JudgeError) as stop:
        read_answers("look --fast", output.replace(b"H", HEADER.encode(), 1), FILES)
    message = str(stop.value)
    assert message.startswith(f"look --fast: {said}"), message
    assert "expected are lines of file,class,probability" in message


def test_of_two_faces_of_one_person_the_surer_counts() -> None:
    lines = f"{HEADER}/a/1.png,,\n/a/0.png,A,0.2\n\n/a/0.png,A,0.7\n/a/0.png,A,0.4\n"
    assert read_answers("look", lines.encode(), FILES) == [{"A": 0.7}, {}]


def test_a_program_that_dies_is_quoted(tmp_path: Path) -> None:
    command = adapter(tmp_path, "import sys\nprint('file,class')\nsys.exit('no \\x1b[31mmodel')")
    with pytest.raises(JudgeError, match=r"ended with code 1. Its last lines: no \\x1b\[31mmodel"):
        run_command(judge_of(command).words(), [], timeout=60)


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """Its child keeps the pipes open: waiting for their end would take as long as the child."""
    child = [sys.executable, "-c", "import time; time.sleep(60)"]
    text = f"import subprocess\nsubprocess.run({child!r})"
    start = time.monotonic()
    with pytest.raises(JudgeError, match="did not end within judge.timeout = 0.5 seconds"):
        run_command(judge_of(adapter(tmp_path, text)).words(), [Path("/a.png")], timeout=0.5)
    assert time.monotonic() - start < 20


def test_a_program_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    text = "while True:\n    print('file,class,probability' * 9999)"
    with pytest.raises(JudgeError, match="printed more than 2 MiB for 1 pictures, and was ended"):
        run_command(judge_of(adapter(tmp_path, text)).words(), [Path("/a.png")], timeout=60)


def test_a_child_that_stays_behind_is_not_waited_for(tmp_path: Path) -> None:
    """As a server that a recogniser starts for its next call; it keeps the output open."""
    child = [sys.executable, "-c", "import time; time.sleep(20)"]
    text = f"import subprocess\nsubprocess.Popen({child!r})\nprint('whole')"
    start = time.monotonic()
    found = run_command(judge_of(adapter(tmp_path, text)).words(), [], timeout=60)
    assert found == b"whole\n" and time.monotonic() - start < 15


def test_two_spellings_of_a_name_in_one_picture_are_one_person(tmp_path: Path) -> None:
    text = BRIGHT.replace("Person_B,0.1", "Person_A,0.2")
    judge = judge_of(adapter(tmp_path, text)).open(JudgeTask(SUBJECTS, "cpu"))
    assert judge.probabilities(grey(255))[SUBJECT].tolist() == [[0, 0.9, 0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('no network file')", "ended with code 1. Its last lines: no network"),
        ("print('Loading model ...')", "line 1 of its output is 'Loading model ...'"),
    ],
)
def test_a_command_is_tried_before_anything_is_drawn(tmp_path: Path, text: str, said: str) -> None:
    config = judge_of(adapter(tmp_path, text))
    with pytest.raises(ValueError, match="judge.command, tried on one grey picture: ") as refused:
        RunJudge(config, SUBJECTS).check("cpu")
    assert said in str(refused.value)
    adapter(tmp_path, BRIGHT)
    RunJudge(config, SUBJECTS).check("cpu")


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="none there can't be started: No such file"):
        run_command([str(tmp_path / "none"), "there"], [], timeout=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["judge.command=none-such --fast"], "there is no program 'none-such' that can be run"),
        (['judge.command=\'"""\''], "can't be split into words"),
        (["judge.command=ls", "judge.classes=/none.txt"], "judge.classes = /none.txt: "),
        (["judge.command=ls", "judge.timeout=0"], "judge.timeout = 0 is out of range"),
        ([], "judge.command is not set"),
    ],
)
def test_what_is_wrong_with_its_settings_is_said_before_a_run(
    settings: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        composed("judge=command", *settings)


def test_a_changed_adapter_judges_again(tmp_path: Path) -> None:
    config = judge_of(adapter(tmp_path, BRIGHT))
    first = RunJudge(config, SUBJECTS).identity
    assert RunJudge(judge_of(config.command, timeout=3.0), SUBJECTS).identity == first
    adapter(tmp_path, BRIGHT + "#")
    assert RunJudge(config, SUBJECTS).identity != first


def test_a_stage_whose_judge_fails_measures_the_rest_and_is_made_again(tmp_path: Path) -> None:
    config = judge_of(adapter(tmp_path, "print('Loading model ...')"))
    drawn = SuiteSamples(suite(4), grey(255, 255, 255, 255), grey(255, 150, 0, 0))
    folder = RunFolder(tmp_path / "run")
    (folder.samples / "before").mkdir(parents=True)

    def stage() -> dict:
        context = Context(
            load=lambda: pytest.fail("no model is needed"),
            cache=Cache(tmp_path / "cache"),
            folder=folder,
            tracker=Tracker(None),
            device="cpu",
        )
        made = measure(
            context,
            Result("drawn", lambda: drawn),
            RunJudge(config, SUBJECTS),
            Choice(["accuracy", "pixel_change"], 0.0, None),
            specificity="preserved",
            notes=[],
        )
        assert made.value == read(folder.metrics)
        return made.value

    metrics = stage()
    assert "accuracy" not in metrics["erased"] and metrics["erased"]["pixel_change"] > 0
    assert "line 1 of its output is 'Loading model ...'" in metrics["missing"][0]
    assert "metrics" not in read(folder.keys)
    adapter(tmp_path, BRIGHT)
    assert stage()["erased"]["accuracy"]["value"] == 0.25
    assert "metrics" in read(folder.keys)
    rows = read_table(folder.scores)
    assert [row["subject"] for row in rows if row["phase"] == "after"][:2] == [
        "Person A",
        "Somebody Else",
    ]
    assert {row["judge"] for row in rows} == {"command"}
