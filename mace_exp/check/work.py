"""The recipe of a run that only looks its keys up in the cache.

The model is loaded, because its fingerprint is in every key; nothing is drawn, trained or written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mace_exp.config.run_config import RunConfig
from mace_exp.models.loading import load_model
from mace_exp.recipe import Recipe
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.record import Tracker
from mace_exp.utils.progress import silenced


class NotMadeYet(Exception):
    """A needed result is only computed in a run, such as sentences of a language model."""


@dataclass
class ReadOnlyCache(Cache):
    """A cache that is only read: paths of missing entries are in the folder `scratch`."""

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


@contextmanager
def checked_recipe(config: RunConfig) -> Iterator[Recipe]:
    """Yield the recipe of a run, checked with its model as in the run, in a folder that is removed
    afterwards.

    Raises:
        ValueError: as `Recipe.check`.
        NotMadeYet: the keys depend on a result that is only computed in the run.
    """
    with tempfile.TemporaryDirectory(prefix="mace_exp-check-") as temporary:
        root = Path(temporary)
        context = Context(
            load=lambda: load_model(config.model, config.device.name),
            cache=ReadOnlyCache(Path(config.cache_dir), scratch=root / "cache"),
            folder=RunFolder(root),
            tracker=Tracker(None),
            device=config.device.name,
            makes=frozenset(config.chosen_stages()),
        )
        recipe = Recipe(context, config)
        with silenced():
            recipe.check()
            yield recipe
