"""The cache shared by all runs: results keyed by a hash of everything that determines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from mace_exp.utils.hashing import key_of


@dataclass
class Cache:
    """Shared results. `reused` and `made` count, by kind, the entries found and created."""

    root: Path
    reused: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def entry(self, kind: str, inputs: Mapping[str, Any], suffix: str = "") -> Path:
        """Return the path of the result of `inputs` (JSON values), whether it exists or not."""
        return self.root / kind / f"{key_of(inputs)}{suffix}"

    def get(
        self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], None] | None
    ) -> Path:
        """Return the entry of `inputs`, creating it if missing: `get_all` for a single entry."""

        def make_one(missing: Mapping[str, Path]) -> None:
            assert make is not None
            make(missing[kind])

        return self.get_all(kind, {kind: inputs}, make_one if make else None)[kind]

    def get_all(
        self,
        kind: str,
        inputs: Mapping[str, Mapping[str, Any]],
        make: Callable[[Mapping[str, Path]], None] | None,
        *,
        suffix: str = "",
    ) -> dict[str, Path]:
        """Return the entries by name; `make` receives all missing ones and creates them together.

        Concurrent jobs create an entry only once: a job holds the lock of each missing entry while
        creating it. Locks are acquired in sorted order, so that jobs with overlapping entries can't
        deadlock.

        Raises:
            ValueError: an entry is missing and `make` is None (its stage is not part of this run).
        """
        paths = {name: self.entry(kind, each, suffix) for name, each in inputs.items()}
        wanted = {path for path in paths.values() if not path.exists()}
        if wanted and make is None:
            raise ValueError(
                f"there are no {kind} for these settings in {self.root}: "
                "add the stage that makes them to stages"
            )
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for path in sorted(wanted):
                locks.enter_context(FileLock(path.with_name(f"{path.name}.lock")))
            missing = {name: path for name, path in paths.items() if not path.exists()}
            if missing and make is not None:
                make(missing)
        for counts, count in ((self.made, len(missing)), (self.reused, len(paths) - len(missing))):
            if count:
                counts[kind] = counts.get(kind, 0) + count
        return paths
