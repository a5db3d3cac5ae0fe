"""What a run says before each stage: its place, what is in the cache, and the time to the end."""

from pathlib import Path
from typing import Any

import pytest

from mace_exp.runs.cache import Cache
from mace_exp.runs.work import FILE, Pace, Plan, Work
from mace_exp.stage_plan import stage_works
from tests.recipes import FEW, recipe_in


def entries(cache: Cache, kind: str, *names: str) -> None:
    for name in names:
        path = cache.path(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def plan(cache: Cache, **works: Work) -> Plan:
    return Plan(works, cache, Pace(cache, "mini", "cpu"))


def test_what_is_left_is_the_share_that_is_not_in_the_cache(cache: Cache) -> None:
    work = Work(unit="lora", size=100, stored={"loras": {"a": 1, "b": 2, "c": 1}})
    assert work.left(cache) == 100
    entries(cache, "loras", "a")
    assert work.found(cache) == {"loras": (1, 4)} and work.left(cache) == 75
    entries(cache, "loras", "b", "c")
    assert work.left(cache) == 0
    assert Work(unit="fusion", size=3).left(cache) == 3, "what is not stored is made again"


def test_what_is_made_in_one_batch_is_made_again_with_what_is_missing_of_it(cache: Cache) -> None:
    stored, batches = {"samples": {"a": 1, "b": 2, "c": 4}}, [{"a", "b"}, {"c"}]
    work = Work(unit="sampling", size=7, stored=stored, together=batches)
    entries(cache, "samples", "a", "c")
    assert work.found(cache) == {"samples": (4, 7)} and work.left(cache) == 3
    entries(cache, "samples", "b")
    assert work.left(cache) == 0


def test_pictures_before_and_after_are_counted_together(cache: Cache) -> None:
    both = Work(unit="sampling", size=4, stored={"samples": {"a": 2}, "edited": {"b": 2}})
    entries(cache, "samples", "a")
    assert plan(cache, samples=both).reused().endswith("2 of 4 pictures")


def test_a_run_says_at_once_what_it_will_reuse(cache: Cache) -> None:
    lora = Work(unit="lora", size=1, stored={"loras": {"a": 1, "b": 1}})
    masks = Work(unit="masks", size=1, stored={"masks": {"m": 1}})
    assert plan(cache, masks=masks, lora=lora).reused() == ""
    entries(cache, "loras", "a")
    entries(cache, "masks", "m")
    said = plan(cache, masks=masks, lora=lora).reused()
    assert said == "in the cache, not made again: 1 masks, 1 of 2 LoRAs"


def test_time_is_said_of_what_was_timed_and_of_the_rest_that_it_is_not_in_it(cache: Cache) -> None:
    works = {
        "images": Work(unit="sampling", size=100),
        "lora": Work(unit="lora", size=50),
        "samples": Work(unit="sampling", size=900),
    }
    first = plan(cache, **works)
    assert first.line("images") == "stage 1 of 3: images"
    first.done("images", {"seconds": 100.0})
    assert first.line("lora") == "stage 2 of 3: lora, about 15 min or more to the end"
    first.done("lora", {"seconds": 300.0})
    assert plan(cache, **works).line("images") == "stage 1 of 3: images, about 22 min to the end"
    assert plan(cache, **works).line("samples") == "stage 3 of 3: samples, about 15 min to the end"


def test_a_pace_is_that_of_a_machine_and_model(cache: Cache) -> None:
    Pace(cache, "mini", "cpu").learn("lora", 2, 10.0)
    Pace(cache, "sdxl", "cuda").learn("lora", 2, 40.0)
    assert Pace(cache, "mini", "cpu").seconds("lora", 6) == 30
    assert Pace(cache, "sdxl", "cuda").seconds("lora", 6) == 120
    assert Pace(cache, "sdxl", "cpu").seconds("lora", 6) is None


def test_a_stage_that_was_mostly_there_teaches_nothing(cache: Cache) -> None:
    entries(cache, "loras", "a", "b")
    lora = Work(unit="lora", size=3, stored={"loras": {"a": 1, "b": 1, "c": 1}})
    plan(cache, lora=lora).done("lora", {"seconds": 5.0})
    assert not (cache.root / FILE).exists()


def test_the_highest_memory_is_remembered_beside_the_pace(cache: Cache) -> None:
    lora = Work(unit="lora", size=2)
    assert plan(cache, lora=lora).memory() == {}
    for peak in (300, 200):
        plan(cache, lora=lora).done("lora", {"seconds": 4.0, "peak_memory_mb": peak})
    assert plan(cache, lora=lora).memory() == {"peak_memory_mb": 300}
    assert plan(cache, lora=lora).seconds("lora") == 4


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"mini cpu": 3}', '{"mini cpu": {"lora": "x"}}'])
def test_a_damaged_pace_is_none(cache: Cache, text: str) -> None:
    cache.root.mkdir()
    (cache.root / FILE).write_text(text)
    pace = Pace(cache, "mini", "cpu")
    assert pace.seconds("lora", 1) is None
    pace.learn("lora", 1, 2.0)
    assert Pace(cache, "mini", "cpu").seconds("lora", 1) == 2


def test_the_work_of_a_run_is_what_its_settings_ask_for(tmp_path: Path, pipeline: Any) -> None:
    names = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]")
    works = stage_works(recipe_in(tmp_path, "judge=none", *names, *FEW, pipeline=pipeline))
    assert list(works)[:3] == ["images", "masks", "preservation"]
    assert works["images"].unit == works["samples"].unit == "sampling"
    assert works["images"].size == 2 * 2 * 2, "concepts x pictures x steps"
    assert {kind: len(set(n)) for kind, n in works["lora"].stored.items()} == {"loras": 2}
    assert {*works["samples"].stored} == {"samples", "edited"}


def test_each_picture_is_drawn_in_one_batch(tmp_path: Path, pipeline: Any) -> None:
    work = stage_works(recipe_in(tmp_path, "judge=none", *FEW, pipeline=pipeline))["samples"]
    batches = [name for names in work.together for name in names]
    stored = [name for names in work.stored.values() for name in names]
    assert sorted(batches) == sorted(stored)
