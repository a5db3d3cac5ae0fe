"""Faults, each tried on a small run of a tiny random model, which is then resumed and compared with
an uninterrupted run."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.faults.trials import (
    RESULTS,
    Place,
    begun,
    ended,
    entries,
    import_for,
    keeping_states,
    killed_after,
    results,
    run,
    short_of_memory,
    without_room,
)

SURVIVED, REFUSED, WRONG, LOST, TRACEBACK = "survived", "refused", "wrong", "lost", "traceback"
OUTCOMES = (SURVIVED, REFUSED, WRONG, LOST, TRACEBACK)
BAD = frozenset({WRONG, LOST, TRACEBACK})
DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit flipped": lambda file: file.write_bytes(_flipped(file.read_bytes())),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
    "replaced by another": lambda file: file.write_bytes(_other(file).read_bytes()),
}
RUN_FILES = (
    *("config.yaml", "status.json", "metrics.json", "keys.json", "manifest.json", "erased.json"),
    *("edit.safetensors", "metrics.jsonl", "samples/prompts.csv", "samples/after/0000.png"),
)
"""Files of a run folder that are damaged."""
STAGES = ("images", "masks", "preservation", "lora", "fusion", "samples", "metrics")
"""Stages from which on there is no memory, or no room on the disk."""
FROM_THE_START = 20
"""Trials in which the disk is full from the start of a run on; further ones: from a stage on."""
ALONE, TOGETHER = "one at a time", "together"
LORAS = {ALONE: "lora.concepts_per_batch=1", TOGETHER: "lora.concepts_per_batch=2"}
"""How LoRAs are trained: their last digits depend on those that they share forward passes with."""

WHOLE = "whole"
"""The copy of the run when it had ended."""


@dataclass(frozen=True)
class Tried:
    """What a trial did, what came of it, and the folder of its files (until the next trial)."""

    what: str
    outcome: str
    folder: Path


class Bench:
    """An uninterrupted run, and the trials that are compared with it.

    Its folder is copied at every write boundary; a trial puts one of the copies back in its place.
    """

    def __init__(self, model: Path, folder: Path, loras: str) -> None:
        self._model, self._folder, self._setting = model, folder, LORAS[loras]
        self._place, self._states = Place(self._new("run")), self._new("states")
        start = time.monotonic()
        self._try_whole()
        self._seconds, self._expected = time.monotonic() - start, results(self._place.run)
        self._place.copy_to(self._states / WHOLE)
        self._clear()
        self._try_whole(keeping_states(self._place, self._states))
        self.boundaries = len([*self._states.iterdir()]) - 1
        if len(self._expected) < 4 or self._expected != results(self._place.run):
            raise RuntimeError("two uninterrupted runs have different results")

    def kill_at_boundary(self, number: int) -> Tried:
        """Go on from what a kill right before or right after a rename leaves."""
        self._place.restore(self._states / str(number % self.boundaries))
        what = f"{'after' if number % 2 else 'before'} rename {1 + number // 2}"
        return self._resumed(what)

    def kill_at_a_time(self, number: int) -> Tried:
        """Kill a run at random times, once or twice."""
        self._clear()
        moments: list[float] = []
        for _ in range(1 + number % 2):
            moments.append(_random("kill", number, len(moments)).uniform(0, 1.1))
            process = begun(self._next(), self._place.printed)
            killed_after(process, moments[-1] * self._seconds)
        what = " and ".join(f"at {moment:.2f} of a run" for moment in moments)
        return self._resumed(what)

    def full_disk(self, number: int) -> Tried:
        """Limit the size of files, as if the disk were full, from the start or from a stage on;
        then resume without the limit. The output is a file, too: it has room for the message."""
        size = int(2 ** _random("full", number).uniform(10, 17))
        stage = STAGES[number % len(STAGES)] if number >= FROM_THE_START else None
        what = f"files of at most {size} bytes from {stage or 'the start'} on"
        self._clear()
        code = run(self._command(self._place), self._place.printed, without_room(size, stage))
        if code not in (0, 1, 2) or "Traceback" in self._place.printed.read_text():
            return Tried(what, TRACEBACK, self._place.root)
        return self._resumed(what)

    def short_of_memory(self, number: int) -> Tried:
        """Let a run have hardly more memory from one of its stages on; then resume it without the
        limit. A library that can't allocate may end the process, which is then as one killed."""
        stage = STAGES[number % len(STAGES)]
        size = int(2 ** _random("memory", number).uniform(20, 26))
        self._clear()
        limit = short_of_memory(stage, size)
        code = run(self._command(self._place), self._place.printed, limit)
        said, what = self._place.printed.read_text(), f"{size} bytes for {stage} and what follows"
        if code > 0 and ("Traceback" in said or "out of memory" not in said):
            return Tried(what, TRACEBACK, self._place.root)
        return self._resumed(what, same=False)  # batches were halved: other last digits

    def pair(self, number: int) -> Tried:
        """Start two runs at once: with one cache, or in one folder, where the second is refused."""
        self._clear()
        place, other, same = self._place, Place(self._new("other")), bool(number % 2)
        command = self._command(place if same else other)
        if not same:
            command = [each for each in command if "cache_dir" not in each]
            command.append(f"cache_dir={place.cache}")
        first = begun(self._command(place), place.printed)
        second = begun(command, other.printed)
        codes = sorted([ended(first), ended(second)])
        what = f"in one {'folder' if same else 'cache'}"
        allowed = ([0, 2], [0, 0]) if same else ([0, 0],)  # both: one after the other
        wrong = codes not in allowed or (not same and results(other.run) != self._expected)
        shutil.rmtree(other.root)
        return Tried(what, WRONG, place.root) if wrong else self._resumed(what)

    def damaged_entry(self, number: int) -> Tried:
        """Damage a cache entry of one kind, and run in a new folder."""
        self._place.restore(self._states / WHOLE)
        shutil.rmtree(self._place.run)
        kinds = {name.split("/")[0]: name for name in entries(self._place.cache)}
        kind = sorted(kinds)[number // len(DAMAGES) % len(kinds)]
        how = _damage(self._place.cache / kinds[kind], number)
        return self._resumed(f"{kind}, {how}", kept=False)

    def damaged_file(self, number: int) -> Tried:
        """Damage a file of the run folder, and resume the run: it may be refused by name."""
        name = RUN_FILES[number // len(DAMAGES) % len(RUN_FILES)]
        self._place.restore(self._states / WHOLE)
        how = _damage(self._place.run / name, number)
        return self._resumed(f"{name}, {how}", kept=False, refusable=True)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._place.root)
        shutil.rmtree(self._states)

    def _try_whole(self, prepare: Callable[[], object] | None = None) -> None:
        if run(self._command(self._place), self._place.printed, prepare) != 0:
            raise RuntimeError(f"the whole run failed: {self._place.printed.read_text()}")

    def _command(self, place: Place) -> list[str]:
        return [*place.arguments(self._model), self._setting]

    def _next(self) -> list[str]:
        """Return the command that resumes the run, or starts it."""
        if not (self._place.run / "config.yaml").is_file():
            return self._command(self._place)
        return [f"resume={self._place.run}"]

    def _resumed(
        self, what: str, *, kept: bool = True, same: bool = True, refusable: bool = False
    ) -> Tried:
        """Resume the run and return the outcome. With `kept`, no finished cache entry may be made
        again; with `same`, results must be those of the whole run; `refusable`: it may end with a
        message that names a file instead."""
        place = self._place
        before = entries(place.cache) if kept else {}
        code = run(self._next(), place.printed)
        said, after = place.printed.read_text(errors="replace"), entries(place.cache)
        found = results(place.run)
        if code == 0 and (found != self._expected if same else found.keys() != {*RESULTS}):
            outcome = WRONG
        elif code == 0:
            there = all(after.get(name) == facts for name, facts in before.items())
            outcome = SURVIVED if there else LOST
        elif "Traceback" in said:
            outcome = TRACEBACK
        elif str(place.root) not in said:
            outcome = WRONG  # a message that names no file
        else:
            outcome = REFUSED if refusable else LOST
        return Tried(what, outcome, place.root)

    def _clear(self) -> None:
        shutil.rmtree(self._place.root)
        self._place.root.mkdir()

    def _new(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))


FAULTS: dict[str, Callable[[Bench, int], Tried]] = {
    "SIGKILL at a write boundary": Bench.kill_at_boundary,
    "SIGKILL at a random time": Bench.kill_at_a_time,
    "disk full": Bench.full_disk,
    "memory used up": Bench.short_of_memory,
    "two at once": Bench.pair,
    "cache entry damaged": Bench.damaged_entry,
    "file of a run damaged": Bench.damaged_file,
}


def tiny_model(folder: Path) -> Path:
    """Write the tiny random model of the tests, and import what runs need before any fork."""
    from mace_exp.models.saving import save_pipeline
    from tests.tiny import tiny_pipeline

    model, first = folder / "model", Place(folder / "first")
    save_pipeline(tiny_pipeline(), model)
    first.root.mkdir()
    import_for(first.arguments(model), first.printed)
    shutil.rmtree(first.root)
    return model


def _random(*name: object) -> random.Random:
    """Return a source of random numbers that depends on the name of a trial only."""
    return random.Random("-".join(map(str, name)))


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :] if data else data


def _other(file: Path) -> Path:
    """Return a file with other content and the same suffix, in the same folder or one beside it."""
    beside = [*file.parent.glob(f"*{file.suffix}"), *file.parent.parent.rglob(f"*{file.suffix}")]
    known = file.read_bytes()
    return next((each for each in beside if each.is_file() and each.read_bytes() != known), file)


def _damage(path: Path, number: int) -> str:
    """Damage a file, or the largest file of a folder; return how."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    how = [*DAMAGES][number % len(DAMAGES)]
    DAMAGES[how](max(files, key=lambda each: each.stat().st_size))
    return how
