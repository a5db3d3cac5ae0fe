"""A LoRA that is lost from the cache is trained again in the batch that it was trained in."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mace_exp.methods.mace.batches import ON_CPU, most_at_once, save_batch, units
from mace_exp.recipe import Recipe
from mace_exp.utils.hashing import file_digest
from tests.composing import composed
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

SETTINGS = composed().lora
NAMES = ("Adam Driver", "Amy Adams", "Amy Poehler")


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Path]:
    """Entries of a to e, of which a and b were trained together, and c and d."""
    found = {slug: tmp_path / f"key-{slug}" for slug in "abcde"}
    for batch in ("ab", "cd", "e"):
        for slug in batch:
            found[slug].mkdir()
            save_batch(found[slug], [found[each].name for each in batch])
    return found


def again(entries: dict[str, Path], missing: str, most: int | str = 8) -> list[str]:
    settings = dict.fromkeys(entries, replace(SETTINGS, concepts_per_batch=most))
    return ["".join(unit) for unit in units(entries, [*missing], settings, on_cpu=False)]


@pytest.mark.parametrize(
    ("missing", "trained"),
    [
        ("", []),
        ("a", ["ab"]),
        ("be", ["ab", "e"]),
        ("ebc", ["ab", "cd", "e"]),
        ("abc", ["cd", "a", "b"]),
        ("e", ["e"]),
    ],
)
def test_what_is_missing_is_trained_with_its_batch(
    entries: dict[str, Path], missing: str, trained: list[str]
) -> None:
    assert again(entries, missing) == trained


def test_a_batch_that_does_not_fit_or_is_not_whole_is_left_alone(entries: dict[str, Path]) -> None:
    assert again(entries, "a", most=1) == ["a"]
    assert again(entries, "a", most="auto") == ["ab"]
    del entries["b"]
    assert again(entries, "ad") == ["cd", "a"]
    (entries["c"] / "batch.json").unlink()  # of an earlier version
    assert again(entries, "d") == ["d"]


def test_as_many_as_fit_are_tried_at_once() -> None:
    auto = replace(SETTINGS, concepts_per_batch="auto")
    assert most_at_once(auto, on_cpu=False) is None, "all, halved when memory is used up"
    assert most_at_once(auto, on_cpu=True) == ON_CPU, "where more save no time"


def trained(folder: Path, cache: Path, pipeline: Any, names: Sequence[str] = NAMES) -> Recipe:
    people = f"concepts.names=[{','.join(names)}]"
    settings = ("concepts=custom", people, *FEW, "lora.concepts_per_batch=2", "evaluation=none")
    recipe = recipe_in(folder, *settings, pipeline=pipeline, cache=cache)
    assert len(recipe.step("lora").value.loras) == len(names)
    return recipe


def digests(cache: Path) -> dict[str, str]:
    return {
        entry.name: file_digest(entry / "lora.safetensors") for entry in (cache / "loras").iterdir()
    }


def test_a_lost_lora_comes_back_to_the_bit(tmp_path: Path) -> None:
    pipeline, cache = tiny_pipeline(), tmp_path / "cache"
    recipe = trained(tmp_path / "first", cache, pipeline)
    method: Any = recipe.method
    [key] = [key for slug, key in method.loras.parts.items() if "amy-adams" in slug]
    whole, damaged = digests(cache), cache / "loras" / key
    (damaged / "lora.safetensors").write_bytes(b"")
    assert trained(tmp_path / "again", cache, pipeline).context.cache.made == {"loras": 1}
    assert digests(cache) == whole
    shutil.rmtree(damaged)
    trained(tmp_path / "alone", cache, pipeline, ["Amy Adams"])
    assert digests(cache) != whole, "without the other the last digits differ"
