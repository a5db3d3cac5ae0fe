"""The services of a run that stages use: model, cache, run folder, tracker, ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mace_exp.models.model import Model
from mace_exp.runs.cache import Cache
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.ranks import Ranks
from mace_exp.runs.record import Picture, Tracker


@dataclass(frozen=True, kw_only=True)
class Context:
    """The services of a run. It holds no result, no stage and no configuration of the run.

    `load` loads the model when a stage first needs it. `makes` names the stages whose results this
    process may make; all others are read. A worker process makes only the shares that rank 0
    assigns, so its `makes` is empty. `shows_images` sends pictures to the dashboard.
    """

    load: Callable[[], Model]
    cache: Cache
    folder: RunFolder
    tracker: Tracker
    device: str = "auto"
    makes: frozenset[str] = frozenset()
    ranks: Ranks = field(default_factory=Ranks)
    shows_images: bool = False

    @cached_property
    def model(self) -> Model:
        """The model before the edit; every stage leaves it as it was."""
        return self.load()

    def may_make(self, stage: str) -> bool:
        """Return whether this process may make the results of a stage, or only read them."""
        return stage in self.makes

    def entries(
        self,
        stage: str,
        kind: str,
        keys: Mapping[str, str],
        make: Callable[[Mapping[str, Path]], None],
        *,
        suffix: str = "",
    ) -> dict[str, Path]:
        """Return the cache entries of `keys` by name; `make` is called with those that are missing,
        if this process may make results of `stage`.

        Raises:
            ValueError: an entry is missing and this run does not include the stage.
        """
        allowed = make if self.may_make(stage) else None
        return self.cache.get_all(kind, keys, allowed, stage=stage, suffix=suffix)

    def entry(self, stage: str, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the cache entry of one key: `entries` for one."""
        return self.entries(stage, kind, {key: key}, lambda missing: make(missing[key]))[key]

    def show(self, name: str, pictures: Sequence[Picture]) -> None:
        """Send pictures to the dashboard if the settings ask for it."""
        if self.shows_images:
            self.tracker.images(name, pictures)
