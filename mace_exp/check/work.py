"""What a run would make, and what it would reuse: the keys of its recipe, looked up in the cache.

The model is loaded, because its fingerprint is in every key; nothing is drawn, trained or written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.config.run_config import RunConfig
from mace_exp.models.loading import load_model
from mace_exp.recipe import Recipe
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.record import Tracker
from mace_exp.runs.result import Result
from mace_exp.utils.progress import silenced


class NotMadeYet(Exception):
    """A result is needed that only a run makes, such as sentences of a language model."""


@dataclass
class LookedAt(Cache):
    """A cache in which nothing is made: what is missing is written to `scratch`, if at all."""

    scratch: Path = Path()

    def path(self, kind: str, key: str, suffix: str = "") -> Path:
        found = super().path(kind, key, suffix)
        return found if found.exists() else self.scratch / kind / found.name

    def get_all(
        self,
        kind: str,
        keys: Mapping[str, str],
        make: Callable[[Mapping[str, Path]], None] | None,
        *,
        stage: str,
        suffix: str = "",
    ) -> dict[str, Path]:
        """Return the entries. Raises NotMadeYet if one is missing."""
        paths = {name: self.path(kind, key, suffix) for name, key in keys.items()}
        if not all(path.exists() for path in paths.values()):
            raise NotMadeYet(kind)
        return paths


@dataclass(frozen=True)
class Work:
    """What one kind of cache entries holds that a stage needs: how much is to be made, and how much
    the cache has, in entries and in things (images, captions, pictures; LoRAs are one each)."""

    stage: str
    kind: str
    entries: int
    made: int
    reused: int


@dataclass(frozen=True)
class Planned:
    """What a run would do: its work by stage, its pictures, and the model's fingerprint."""

    work: list[Work]
    pictures: int
    fingerprint: str


def planned(config: RunConfig) -> Planned:
    """Check a run with its model, as it checks itself, and return what it would do.

    Raises:
        ValueError: what `Recipe.check` refuses.
        NotMadeYet: the keys depend on what only the run makes.
    """
    with _recipe(config) as recipe, silenced():
        recipe.check()
        kept = kept_entries(recipe)
        work = [
            _work(recipe.context.cache.root / kind, stage, names)
            for stage, kinds in kept.items()
            for kind, names in kinds.items()
        ]
        return Planned(work, 2 * len(recipe.suite), recipe.context.model.fingerprint)


def _work(folder: Path, stage: str, entries: Mapping[str, int]) -> Work:
    missing = {name: count for name, count in entries.items() if not (folder / name).exists()}
    made, total = sum(missing.values()), sum(entries.values())
    return Work(stage, folder.name, len(missing), made, total - made)


def kept_entries(recipe: Recipe) -> dict[str, dict[str, dict[str, int]]]:
    """Return the names of the cache entries that each stage makes or reads, by kind, each with the
    number of things in it."""
    steps = recipe.config.method.steps()
    results: dict[str, Callable[[], list[Result[Any]]]] = {
        "images": lambda: [recipe.images, recipe.prior_images],
        "masks": lambda: [recipe.masks],
        "preservation": lambda: list(recipe.preservation.terms.values()),
        **{step: lambda step=step: [recipe.method.step(step)] for step in steps},
        "samples": lambda: [recipe.samples] if recipe.suite else [],
    }
    found: dict[str, dict[str, dict[str, int]]] = {}
    for stage in recipe.config.chosen_stages():
        kinds = found.setdefault(stage, {})
        for result in results.get(stage, list)():
            for kind, names in result.stored.items():
                kinds[kind] = kinds.get(kind, {}) | dict(names)
    return found


@contextmanager
def _recipe(config: RunConfig) -> Iterator[Recipe]:
    """Yield the recipe of a run in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="mace_exp-check-") as temporary:
        root = Path(temporary)
        context = Context(
            load=lambda: load_model(config.model, config.device.name),
            cache=LookedAt(Path(config.cache_dir), scratch=root / "cache"),
            folder=RunFolder(root),
            tracker=Tracker(None),
            device=config.device.name,
            makes=frozenset(config.chosen_stages()),
        )
        yield Recipe(context, config)
