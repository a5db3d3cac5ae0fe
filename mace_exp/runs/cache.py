"""The cache shared by runs: results under a key of all their inputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mace_exp.utils.files import leftover_of, remove, write_text
from mace_exp.utils.hashing import content_digest

log = logging.getLogger(__name__)

LOCKS, CHECKSUMS, DAMAGED = "locks", "checksums", "damaged"
OWN = frozenset({LOCKS, CHECKSUMS, DAMAGED})
"""Folders for bookkeeping; all others are named by the kind of the entries in them."""


MOMENT = 3600.0
"""Seconds after which a temporary file in a bookkeeping folder counts as abandoned."""


@dataclass
class Cache:
    """Results shared by runs, one entry per key: the first process that needs one makes it, others
    read it.

    `reused` and `made` count the entries, by kind, that this run read and made; `not_drawn` the
    pictures in the latter that were copied from others, which they equal. Checksums of the entries
    are in a separate folder; they are verified before an entry is read.
    """

    root: Path
    reused: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    not_drawn: int = 0

    def path(self, kind: str, key: str, suffix: str = "") -> Path:
        """Return the path of the entry of a key, whether or not it exists."""
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
        """Return the paths of entries by name; `make` is called once with all that are missing.

        An entry that does not match its checksum is moved to `damaged`, with a warning, and counts
        as missing. Concurrent jobs create an entry only once: a job holds the lock of each missing
        entry while creating it. Locks are acquired in sorted order, so that jobs with overlapping
        entries can't deadlock.

        Raises:
            ValueError: an entry is missing and `make` is None (this run does not include `stage`).
        """
        paths = {name: self.path(kind, key, suffix) for name, key in keys.items()}
        wanted = {path for path in paths.values() if not is_whole(path)}
        if wanted and make is None:
            raise ValueError(
                f"there are no {kind} for these settings in {self.root}, or damaged ones: add "
                f"{stage}, which makes them, to stages"
            )
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for path in sorted(wanted):
                locks.enter_context(FileLock(lock_file(path)))
            missing = {name: path for name, path in paths.items() if path in wanted}
            missing = {name: path for name, path in missing.items() if not _found(path)}
            if missing and make is not None:
                make(missing)
                for path in missing.values():
                    if not checksum_file(path).exists():
                        seal(path)
        self._count(kind, made=len(missing), reused=len(paths) - len(missing))
        return paths

    def counts(self) -> tuple[int, int]:
        """Return how many entries this run has made and reused so far, of all kinds."""
        return sum(self.made.values()), sum(self.reused.values())

    def leftovers(self) -> Iterator[Path]:
        """Yield temporary files of killed processes: those whose entry is not locked."""
        for path in sorted(self.root.glob("*/.*")):
            name = leftover_of(path)
            if name is None:
                continue
            if path.parent.name in OWN:  # written without a lock, in a short time
                left = time.time() - path.stat().st_mtime > MOMENT
            else:
                left = is_free(lock_file(path.with_name(name)))
            if left:
                yield path

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed processes."""
        for path in self.leftovers():
            remove(path)

    def _count(self, kind: str, *, made: int, reused: int) -> None:
        for counts, count in ((self.made, made), (self.reused, reused)):
            if count:
                counts[kind] = counts.get(kind, 0) + count


def seal(entry: Path) -> None:
    """Record the checksum of an entry that was just written."""
    write_text(checksum_file(entry), content_digest(entry))


def is_whole(entry: Path) -> bool:
    """Return whether an entry exists and matches its checksum. An entry without a checksum (made by
    an older version, or by a process killed before writing it) is trusted and gets one."""
    if not entry.exists():
        return False
    file = checksum_file(entry)
    try:
        return file.read_bytes() == content_digest(entry).encode()
    except FileNotFoundError:
        seal(entry)
        return True


def _found(entry: Path) -> bool:
    """Return whether an entry, whose lock the caller holds, is intact; move it away if it is
    damaged."""
    if is_whole(entry):
        return True
    if entry.exists():
        aside = _beside(entry, DAMAGED)
        remove(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        entry.rename(aside)
        log.warning("%s is not what was written: it is now %s, and is made again", entry, aside)
    checksum_file(entry).unlink(missing_ok=True)
    return False


def checksum_file(entry: Path) -> Path:
    """Return the file with the checksum of an entry."""
    return _beside(entry, CHECKSUMS)


def lock_file(entry: Path) -> Path:
    """Return the lock file of an entry; locks are in one folder, not beside the entries."""
    lock = _beside(entry, LOCKS)
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.with_name(f"{lock.name}.lock")


def is_free(lock: Path) -> bool:
    """Return whether no living process holds a lock."""
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _beside(entry: Path, folder: str) -> Path:
    return entry.parents[1] / folder / f"{entry.parent.name}-{entry.name}"
