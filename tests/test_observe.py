"""Stage samples: what is drawn to be measured."""

from types import SimpleNamespace
from typing import Any

from mace_exp.stages.observe import _suite
from tests.composing import composed


def test_what_is_erased_is_no_kept_object_even_where_the_erased_part_is_not_drawn() -> None:
    config = composed("concepts=object_cat", "evaluation.parts=[objects]")
    work: Any = SimpleNamespace(config=config, concepts=config.concept_list())
    drawn = {(each.part, each.concept) for each in _suite(work, work.config.evaluation)}
    assert "cat" in config.kept.objects
    assert drawn == {("objects", name) for name in config.kept.objects if name != "cat"}
