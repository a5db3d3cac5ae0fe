"""The adapter for recognisers that look at one image per call, with a stand-in for one."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.judges.base import SUBJECT, JudgeError, JudgeTask
from mace_exp.evaluation.judges.command import CommandJudge
from mace_exp.evaluation.recognisers.process import NOTHING

ADAPTER = Path(__file__).parents[1] / "experiments" / "recognisers" / "one_by_one.py"
STAND_IN = """
import sys
from PIL import Image
picture = Image.open(sys.argv[sys.argv.index("--image_path") + 1])
level = picture.convert("L").getpixel((0, 0))
print("Using a backend.", picture.format)
if level > 200:
    print("face 1 -> Person_A (93.5 %)")
    print("face 2 -> Person B (6 %)")
elif level > 100:
    print("no faces found")
elif level > 50:
    sys.exit("out of memory")
"""
LINE = r"-> (?P<name>[^(]+) \((?P<probability>[0-9.]+) %"


def judge_of(folder: Path, *further: str, line: str = LINE) -> CommandJudge:
    script = folder / "inference.py"
    script.write_text(STAND_IN, encoding="utf-8")
    words = [sys.executable, str(ADAPTER), "--line", line, "--nothing", "no faces", "--percent"]
    command = [*words, *further, "--", sys.executable, str(script), "--image_path", "{}"]
    return CommandJudge(command=shlex.join(command), classes=None, finds_faces=True, timeout=60.0)


def asked(judge: CommandJudge, *levels: int) -> tuple[tuple[str, ...], list[list[float]]]:
    subjects = {"Person A": Kind.person, "Person B": Kind.person}
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])
    opened = judge.open(JudgeTask(subjects, "cpu"))
    found = opened.probabilities(images)[SUBJECT].round(6).tolist()
    return opened.classes[SUBJECT], found


def test_faces_and_images_without_one_are_answered(tmp_path: Path) -> None:
    names, found = asked(judge_of(tmp_path, "--jpg", "--jobs", "2"), 255, 150)
    assert names == (NOTHING, "Person A", "Person B")
    assert found == [[0, 0.935, 0.06], [1, 0, 0]]


@pytest.mark.parametrize(
    ("level", "further", "said"),
    [
        (0, (), "neither --line nor --nothing is in its output"),
        (90, (), "ended with code 1: out of memory"),
        (255, ("--folder", "/proc/nowhere"), "/proc/nowhere"),
    ],
)
def test_silence_and_failures_are_no_answers(
    tmp_path: Path, level: int, further: tuple[str, ...], said: str
) -> None:
    with pytest.raises(JudgeError, match=said):
        asked(judge_of(tmp_path, *further), level)


def test_an_expression_without_its_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="--line needs the groups"):
        asked(judge_of(tmp_path, line="name"), 255)
