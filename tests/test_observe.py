"""Stage samples: what is drawn to be measured."""

from types import SimpleNamespace
from typing import Any

from mace_exp.evaluation.suite import EvaluationPrompt
from mace_exp.stages.observe import PIECE, _pieces, _suite
from tests.composing import composed


def test_what_is_erased_is_no_kept_object_even_where_the_erased_part_is_not_drawn() -> None:
    config = composed("concepts=object_cat", "evaluation.parts=[objects]")
    work: Any = SimpleNamespace(config=config, concepts=config.concept_list())
    drawn = {(each.part, each.concept) for each in _suite(work, work.config.evaluation)}
    assert "cat" in config.kept.objects
    assert drawn == {("objects", name) for name in config.kept.objects if name != "cat"}


def test_no_piece_is_of_two_subjects_or_takes_long_to_draw() -> None:
    drawn = [("erased", "Adam", 3), ("erased", "Eve", 2 * PIECE + 1), ("preserved", "Eve", 1)]
    suite = [EvaluationPrompt(part, who, "", i, who) for part, who, n in drawn for i in range(n)]
    pieces = _pieces(suite)
    assert [len(piece) for piece in pieces.values()] == [3, PIECE, PIECE, 1, 1]
    assert [each for piece in pieces.values() for each in piece] == suite
