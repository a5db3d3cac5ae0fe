"""Stage samples: what is drawn to be measured, and in which shards."""

from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.stages.samples import SHARD_SIZE, shards
from tests.composing import composed


def test_what_is_erased_is_no_kept_object_even_where_the_erased_part_is_not_drawn() -> None:
    config = composed("concepts=object_cat", "evaluation.parts=[objects]")
    evaluation = config.evaluation.active()
    assert evaluation is not None
    suite = evaluation.suite(config.concept_list(), config.kept, {})
    drawn = {(each.part, each.concept) for each in suite}
    assert "cat" in config.kept.objects
    assert drawn == {("objects", name) for name in config.kept.objects if name != "cat"}


def test_no_shard_is_of_two_subjects_or_takes_long_to_draw() -> None:
    drawn = [("erased", "Adam", 3), ("erased", "Eve", 2 * SHARD_SIZE + 1), ("preserved", "Eve", 1)]
    suite = [EvaluationPrompt(part, who, "", i, who) for part, who, n in drawn for i in range(n)]
    pieces = shards(suite)
    assert [len(piece) for piece in pieces.values()] == [3, SHARD_SIZE, SHARD_SIZE, 1, 1]
    assert [each for piece in pieces.values() for each in piece] == suite
