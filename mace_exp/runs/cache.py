"""The cache shared by runs: results under a key of all their inputs."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from mace_exp.utils.files import atomic_folder, leftover_of, remove, write_text
from mace_exp.utils.hashing import content_digest
from mace_exp.utils.reading import regular

log = logging.getLogger(__name__)

LOCKS, CHECKSUMS, DAMAGED, GROUPS = "locks", "checksums", "damaged", "groups"
OWN = frozenset({LOCKS, CHECKSUMS, DAMAGED, GROUPS})
"""Folders for bookkeeping; all others are named by the kind of the entries in them. A folder in
`GROUPS` holds entries that were stored together, on the way to their places."""
_NAME = re.compile(r"(\w+)-(\w[\w.]*)")
"""What a bookkeeping folder calls an entry: its kind and its name."""

MOMENT = 3600.0
"""Seconds after which a temporary file in a bookkeeping folder counts as abandoned. One that is of
so much later than now is, too: the clock was put back since."""


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
                left = _age(path) > MOMENT
            else:
                left = is_free(lock_file(path.with_name(name)))
            if left:
                yield path

    def tidy(self) -> None:
        """Finish what killed processes have stored, and remove their temporary files."""
        self.finish()
        for path in self.leftovers():
            remove(path)

    def finish(self) -> None:
        """Move entries that killed processes have stored in a group to their places."""
        for waiting in sorted(self.root.glob(f"{GROUPS}/[!.]*/*")):
            name = _NAME.fullmatch(waiting.name)
            if name is not None:
                self._finish(waiting, self.path(*name.groups()))
        for group in self.root.glob(f"{GROUPS}/[!.]*"):
            with suppress(OSError):  # entries of a process at work are in it
                group.rmdir()

    def _finish(self, waiting: Path, entry: Path) -> None:
        """Move an entry to its place, unless another process holds its lock and does."""
        with suppress(Timeout), FileLock(lock_file(entry), timeout=0):
            if _found(entry):  # which moves it
                remove(waiting)

    def _count(self, kind: str, *, made: int, reused: int) -> None:
        for counts, count in ((self.made, made), (self.reused, reused)):
            if count:
                counts[kind] = counts.get(kind, 0) + count


def seal(entry: Path) -> None:
    """Record the checksum of an entry that was just written."""
    write_text(checksum_file(entry), content_digest(entry))


@contextmanager
def atomic_entries(entries: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary folder for each of several entries of one cache, whose locks the caller
    holds; on success all become entries. A process that is killed leaves all of them or none.

    The one rename of the folder that holds them all decides. Each is then moved to its place: by
    this process or, if it is killed before, by the next one that holds the entry's lock.
    """
    together = entries[0].parents[1] / GROUPS / uuid4().hex
    with atomic_folder(together) as temporary:
        folders = [temporary / _name(entry) for entry in entries]
        for folder in folders:
            folder.mkdir()
        yield folders
    for entry in entries:
        _move(together / _name(entry), entry)


def _move(waiting: Path, entry: Path) -> None:
    """Give an entry of a group its place; the last one takes the group's folder with it."""
    os.replace(waiting, entry)
    seal(entry)
    with suppress(OSError):  # others wait in it
        waiting.parent.rmdir()


def is_whole(entry: Path) -> bool:
    """Return whether an entry exists and matches its checksum. An entry without a checksum (made by
    an older version, or by a process killed before writing it) is trusted and gets one."""
    if not entry.exists():
        return False
    file = checksum_file(entry)
    try:
        return regular(file).read_bytes() == content_digest(entry).encode()
    except FileNotFoundError:
        seal(entry)
        return True
    except ValueError:  # a pipe or a device, of which nothing is read
        return False


def _found(entry: Path) -> bool:
    """Return whether an entry, whose lock the caller holds, is intact; move it away if it is
    damaged, and to its place if a killed process has stored it in a group."""
    if is_whole(entry):
        return True
    if entry.exists():
        aside = _beside(entry, DAMAGED)
        remove(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        entry.rename(aside)
        log.warning("%s is not what was written: it is now %s, and is made again", entry, aside)
    remove(checksum_file(entry))
    for waiting in (entry.parents[1] / GROUPS).glob(f"[!.]*/{_name(entry)}"):
        _move(waiting, entry)
        return True
    return False


def checksum_file(entry: Path) -> Path:
    """Return the file with the checksum of an entry."""
    return _beside(entry, CHECKSUMS)


def lock_file(entry: Path) -> Path:
    """Return the lock file of an entry; locks are in one folder, not beside the entries."""
    lock = _beside(entry, LOCKS)
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.with_name(f"{lock.name}.lock")


def _age(path: Path) -> float:
    """Return the seconds between now and when a file was written; 0 if it has got its name in the
    meantime."""
    try:
        return abs(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def is_free(lock: Path) -> bool:
    """Return whether no living process holds a lock."""
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _beside(entry: Path, folder: str) -> Path:
    return entry.parents[1] / folder / _name(entry)


def _name(entry: Path) -> str:
    return f"{entry.parent.name}-{entry.name}"
