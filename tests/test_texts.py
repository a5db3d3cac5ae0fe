"""Text that can't be meant is refused by its key; what is shown is not obeyed."""

import logging
from collections.abc import Callable

import pytest
import yaml

from mace_exp.config.composing import composed_run
from mace_exp.utils.conf import CONF
from mace_exp.utils.texts import LONGEST, ShownFormatter, fault_of, shown

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "yes": ({"concepts.names": ["Adam Driver", True]}, "concepts.names: 'True' is what YAML makes"),
    "no": ({"kept.people": [False]}, "kept.people: 'False' is what YAML makes of no, off"),
    "an empty cache": ({"cache_dir": ""}, "cache_dir: '' is empty: give a text"),
    "blanks": ({"kept.objects": ["ship", "  "]}, "kept.objects: the name '  ' is empty"),
    "an empty file": ({"preservation.prior.file": ""}, "file: '' is empty: give a text, or null"),
    "an escape": ({"kept.people": ["\x1b[2Jme"]}, r"kept.people: '\\\\x1b\[2Jme' holds '\\x1b'"),
    "a turn": ({"kept.people": ["Amy \u202eAdams"]}, r"kept.people: .* holds '\\u202e'"),
    "half a letter": ({"kept.people": ["Amy \ud800"]}, r"kept.people: .* holds '\\ud800'"),
    "a book": ({"kept.people": ["a" * (LONGEST + 1)]}, "has 10001 characters: at most 10000"),
    "its own anchor": (
        {"anchors.per_concept": {"Adam Driver": "a man like adam driver"}},
        "anchor of 'Adam Driver' is 'a man like adam driver', which names the concept",
    ),
    "a person": ({"concepts.names": ["person"]}, "anchor of 'person' is 'a person', which names"),
    "a wall": ({"sampling.height": 1_000_000}, "sampling.height = 1e.06 is out of range"),
    "too many ranks": ({"lora.rank": 10**20}, "lora.rank = 1e.20 is out of range"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_by_its_key(name: str) -> None:
    values, said = REFUSED[name]
    usual: dict[str, object] = {"concepts.names": ["Adam Driver"]}
    with pytest.raises(ValueError, match=said) as refused:
        composed_run("concepts=custom", "judge=none", values=usual | values, files=False)
    assert len(str(refused.value)) < 400, "a book is not printed"


ALLOWED: dict[str, dict[str, object]] = {
    "a word in quotes": {"concepts.names": ["yes", "Off"]},
    "other alphabets": {"kept.people": ["Amélie Poulain", "王菲"]},
    "a part of a word": {"concepts.names": ["man ray"], "anchors.person": "a woman"},
    "a tab": {"preservation.prior.captions": ["a cat\tand a dog"]},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_be_meant_is_taken(name: str) -> None:
    usual: dict[str, object] = {"concepts.names": ["Adam Driver"]}
    composed_run("concepts=custom", values=usual | ALLOWED[name], files=False)


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert shown("\x1b]0;title\x07 é \n\t\x9b2J\ud800") == "\\x1b]0;title\\x07 é \n\t\\x9b2J\\ud800"
    shown("\ud800").encode()
    assert fault_of("é \n\t") is None


def test_log_lines_are_shown_and_not_obeyed() -> None:
    record = logging.LogRecord("a", logging.WARNING, "b", 1, "%s", ("\x1b[2J\nnext",), None)
    assert ShownFormatter("%(message)s").format(record) == "\\x1b[2J\nnext"
    file = CONF / "hydra" / "job_logging" / "mace_exp.yaml"
    logged = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert logged["formatters"]["simple"]["class"].endswith(ShownFormatter.__name__)


def test_messages_on_the_terminal_are_shown_and_not_obeyed(
    refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    refusal("concepts='[\x1b[31mred]'", "stages=[\x1b[2J]")
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\\x1b[" in said
