"""The cache that runs share: results by the key of all that decides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock


@dataclass
class Cache:
    """Results that runs share, one entry per key; whoever comes first makes it, all others read it.

    `reused` and `made` count the entries, by kind, that this run found and made.
    """

    root: Path
    reused: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def path(self, kind: str, key: str, suffix: str = "") -> Path:
        """Return where the entry of a key lies or would lie."""
        return self.root / kind / f"{key}{suffix}"

    def get_all(
        self,
        kind: str,
        keys: Mapping[str, str],
        make: Callable[[Mapping[str, Path]], None] | None,
        *,
        stage: str,
        suffix: str = "",
    ) -> dict[str, Path]:
        """Return the entries by name; `make` receives those that are missing, to make together.

        Concurrent jobs create an entry only once: a job holds the lock of each missing entry while
        creating it. Locks are acquired in sorted order, so that jobs with overlapping entries can't
        deadlock.

        Raises:
            ValueError: one is missing and `make` is None (`stage` is not among those of this run).
        """
        paths = {name: self.path(kind, key, suffix) for name, key in keys.items()}
        wanted = {path for path in paths.values() if not path.exists()}
        if wanted and make is None:
            raise ValueError(
                f"there are no {kind} for these settings in {self.root}: add {stage}, which makes "
                "them, to stages"
            )
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for path in sorted(wanted):
                locks.enter_context(FileLock(self._lock(path)))
            missing = {name: path for name, path in paths.items() if not path.exists()}
            if missing and make is not None:
                make(missing)
        self._count(kind, made=len(missing), reused=len(paths) - len(missing))
        return paths

    def _lock(self, entry: Path) -> Path:
        """Return the lock of an entry: all lie in one folder, not beside the entries."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return locks / f"{entry.parent.name}-{entry.name}.lock"

    def _count(self, kind: str, *, made: int, reused: int) -> None:
        for counts, count in ((self.made, made), (self.reused, reused)):
            if count:
                counts[kind] = counts.get(kind, 0) + count
