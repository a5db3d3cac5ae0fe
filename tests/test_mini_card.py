"""The card's tables are generated from the files beside it."""

import json

import pytest

from experiments.mini_world.card import met, scores_table, training_table, with_table
from mace_exp.mini.judge import WEIGHTS

FOLDER = WEIGHTS.parent


@pytest.mark.parametrize(
    ("name", "table"), [("scores", scores_table), ("training", training_table)]
)
def test_the_shipped_card_says_what_was_measured(name: str, table) -> None:  # noqa: ANN001
    measured = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert table(measured) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_table_takes_the_place_of_the_old_one() -> None:
    text = "a\n<!-- scores -->\nold\n<!-- end of scores -->\nb"
    once = with_table(text, "scores", "| new |")
    assert once == "a\n<!-- scores -->\n| new |\n<!-- end of scores -->\nb"
    assert with_table(once, "scores", "| new |") == once


def test_a_card_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- scores -->"):
        with_table("nothing", "scores", "")


def test_a_missed_aim_is_marked() -> None:
    assert met("people", 0.94).startswith("NOT met") and met("people", 0.96).startswith("met")
    assert met("threads", 2) == ""
