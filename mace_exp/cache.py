"""`python -m mace_exp.cache [CACHE]`: what lies in the cache that runs share, and what may go.

Without an option the size of every kind is printed, and nothing is removed. What a run is making is
never removed; what is removed and needed again is made again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mace_exp.cli.common import run_command
from mace_exp.runs.cache import (
    CHECKSUMS,
    DAMAGED,
    LOCKS,
    OWN,
    Cache,
    checksum_file,
    is_free,
    lock_file,
)
from mace_exp.utils.files import leftover_of, remove

NAME = "python -m mace_exp.cache"
DAY = 24 * 3600
log = logging.getLogger("mace_exp.cache")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for an error."""
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cache", nargs="?", type=Path, default=Path("outputs/cache"), metavar="CACHE"
    )
    parser.add_argument(
        "--older", type=float, metavar="DAYS", help="remove entries that no run made in these days"
    )
    parser.add_argument(
        "--clear",
        action="store_true",
        help="remove what killed runs have left, damaged entries that were set aside, and locks "
        "and checksums of entries that are gone",
    )
    return run_command(NAME, lambda: tend(parser.parse_args(arguments)))


def tend(chosen: argparse.Namespace) -> None:
    """Remove what is asked for, then print what is there.

    Raises:
        ValueError: the folder is no cache, or the number of days is negative.
    """
    root = chosen.cache
    if not (root / LOCKS).is_dir():
        raise ValueError(f"{root} is no cache of mace_exp: it has no folder {LOCKS!r}")
    if chosen.older is not None:
        if not chosen.older >= 0:
            raise ValueError(f"--older {chosen.older:g}: a number of days is at least 0")
        _remove(_older(root, time.time() - chosen.older * DAY), "entries")
    if chosen.clear:
        cache = Cache(root)
        cache.finish()
        _remove(cache.leftovers(), "leftovers")
        _remove((root / DAMAGED).glob("*"), "damaged entries")
        _remove(_orphans(root), "locks and checksums")
    for kind, (count, size) in sizes(root).items():
        log.info("%-12s %6d entries %10.1f MB", kind, count, size / 1e6)


def entries(root: Path) -> Iterator[Path]:
    """Yield every entry of a cache, whatever its kind; temporary files are none."""
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in OWN:
            yield from (each for each in sorted(folder.iterdir()) if not leftover_of(each))


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Return the number of entries and their bytes, by kind."""
    found: dict[str, tuple[int, int]] = {}
    for entry in entries(root):
        count, size = found.get(entry.parent.name, (0, 0))
        found[entry.parent.name] = (count + 1, size + _bytes(entry))
    return found


def _older(root: Path, moment: float) -> Iterator[Path]:
    """Yield the entries that were written before a moment, without those that are being made, and
    with each its checksum."""
    for entry in entries(root):
        if entry.stat().st_mtime < moment and is_free(lock_file(entry)):
            yield checksum_file(entry)
            yield entry


def _orphans(root: Path) -> Iterator[Path]:
    """Yield locks that nobody holds, and checksums of entries that are gone."""
    known = {checksum_file(entry).name for entry in entries(root)}
    for lock in sorted((root / LOCKS).glob("*.lock")):
        if is_free(lock):
            yield lock
    for checksum in sorted((root / CHECKSUMS).glob("*")):
        if checksum.name not in known and leftover_of(checksum) is None:
            yield checksum


def _remove(paths: Iterator[Path], what: str) -> None:
    found = list(paths)
    size = sum(map(_bytes, found))
    for path in found:
        remove(path)
    log.info("removed %d %s, %.1f MB", len(found), what, size / 1e6)


def _bytes(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())


if __name__ == "__main__":
    sys.exit(main())
