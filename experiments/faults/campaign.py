"""`python -m experiments.faults.campaign`: kill runs, fill disks, damage files, run two at once.

Every trial interrupts or damages a small run of a tiny random model, resumes it, and compares it
with an uninterrupted run: results must be bit-identical, or a message must name what is wrong.
Prints a table. The exit status is 1 if a result was wrong, finished work was lost or a traceback
was printed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.faults.trials import (
    Place,
    begun,
    counting,
    ended,
    entries,
    killed_after,
    killing_at,
    results,
    run,
    without_room,
)

SURVIVED, REFUSED, WRONG, LOST, TRACEBACK = "survived", "refused", "wrong", "lost", "traceback"
OUTCOMES = (SURVIVED, REFUSED, WRONG, LOST, TRACEBACK)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped": lambda data: _flipped(data),
    "cut in half": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
}
KEPT = ("config.yaml", "status.json", "metrics.json", "keys.json", "manifest.json", "erased.json")
"""Files of a run folder that are damaged, besides those in `OTHERS`."""
OTHERS = ("edit.safetensors", "metrics.jsonl", "samples/prompts.csv", "samples/after/0000.png")


@dataclass
class Campaign:
    """The trials, and the uninterrupted run that they are compared with."""

    model: Path
    root: Path
    seed: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0
    boundaries: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.whole = Place(self._folder("whole"))
        marks = self.whole.root / "renames"
        start = time.monotonic()
        code = run(self.whole.arguments(self.model), self.whole.printed, counting(marks))
        assert code == 0, self.whole.printed.read_text()
        self.seconds, self.boundaries = time.monotonic() - start, marks.stat().st_size
        self.expected = results(self.whole.run)
        assert len(self.expected) == 4, self.expected

    def kills(self, count: int) -> None:
        """Kill a run at random times, once or twice, and resume it."""
        for number in range(count):
            place = Place(self._folder("kill"))
            for _ in range(1 + number % 2):
                process = begun(self._next(place), place.printed)
                killed_after(process, self.random.uniform(0, self.seconds * 1.1))
            self._judge("SIGKILL at a random time", place)

    def kills_at_boundaries(self, count: int) -> None:
        """Kill a run right before or right after a finished file is renamed."""
        points = [(n, after) for n in range(1, self.boundaries + 1) for after in (False, True)]
        for boundary, after in self.random.sample(points, min(count, len(points))):
            place = Place(self._folder("boundary"))
            run(place.arguments(self.model), place.printed, killing_at(boundary, after=after))
            self._judge("SIGKILL at a write boundary", place)

    def full_disks(self, count: int) -> None:
        """Limit the size of files, as if the disk were full; then resume without the limit."""
        for _ in range(count):
            place, size = Place(self._folder("full")), int(2 ** self.random.uniform(4, 17))
            code = run(place.arguments(self.model), place.printed, without_room(size))
            if code not in (0, 1, 2) or "Traceback" in place.printed.read_text():
                self._note("disk full", TRACEBACK, place)
            else:
                self._judge("disk full", place)

    def damaged_entries(self, count: int) -> None:
        """Damage a cache entry of each kind in `count` ways, and run in a new folder."""
        for entry in self._one_of_each_kind():
            for damage in self.random.sample([*DAMAGES.values()], count):
                place = self._copy(with_run=False)
                _damage(place.cache / entry, damage)
                self._judge("cache entry damaged", place, compared=False)

    def damaged_runs(self, count: int) -> None:
        """Damage each file of the run folder in `count` ways, and resume the run."""
        for name in (*KEPT, *OTHERS):
            for damage in self.random.sample([*DAMAGES.values()], count):
                place = self._copy(with_run=True)
                _damage(place.run / name, damage)
                self._judge("file of a run damaged", place, compared=False)

    def pairs(self, count: int) -> None:
        """Start two runs at once: with one cache, or in one folder, where the second is refused."""
        for number in range(count):
            place, other = (Place(self._folder("pair")) for _ in range(2))
            together = [each for each in other.arguments(self.model) if "cache_dir" not in each]
            together.append(f"cache_dir={place.cache}")
            if number % 2:
                together = place.arguments(self.model)
            first = begun(place.arguments(self.model), place.printed)
            second = begun(together, other.printed)
            codes = sorted([ended(first), ended(second)])
            expected = [0, 2] if number % 2 else [0, 0]
            if codes != expected and not (number % 2 and codes == [0, 0]):  # one after the other
                self._note("two at once", WRONG, place)
            elif not number % 2 and results(other.run) != self.expected:
                self._note("two at once", WRONG, other)
            else:
                self._judge("two at once", place)

    def _next(self, place: Place) -> list[str]:
        """Return the command that resumes a run, or starts it."""
        if not (place.run / "config.yaml").is_file():
            return place.arguments(self.model)
        return [f"resume={place.run}"]

    def _judge(self, fault: str, place: Place, *, compared: bool = True) -> None:
        """Resume a run and record the outcome; with `compared`, finished cache entries must not be
        computed again."""
        before = entries(place.cache) if compared else {}
        code = run(self._next(place), place.printed)
        said = place.printed.read_text(errors="replace")
        after = entries(place.cache)
        if code == 0 and results(place.run) != self.expected:
            outcome = WRONG
        elif code == 0:
            kept = all(after.get(name) == facts for name, facts in before.items())
            outcome = SURVIVED if kept else LOST
        elif "Traceback" in said:
            outcome = TRACEBACK
        else:
            outcome = REFUSED if str(place.root) in said else WRONG
        if outcome == REFUSED and fault != "file of a run damaged":
            outcome = LOST  # only damaged files of a run may be refused
        self._note(fault, outcome, place)

    def _note(self, fault: str, outcome: str, place: Place) -> None:
        self.outcomes.setdefault(fault, Counter())[outcome] += 1
        if outcome in (SURVIVED, REFUSED):
            shutil.rmtree(place.root)
        else:
            sys.stderr.write(f"{fault}: {outcome}, see {place.root}\n")

    def _folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root))

    def _copy(self, *, with_run: bool) -> Place:
        """Return a copy of the whole run, with the paths in its config.yaml changed."""
        place = Place(self._folder("damaged"))
        shutil.copytree(self.whole.cache, place.cache)
        if with_run:
            shutil.copytree(self.whole.run, place.run)
            config = place.run / "config.yaml"
            text = config.read_text().replace(str(self.whole.root), str(place.root))
            config.write_text(text)
        return place

    def _one_of_each_kind(self) -> Iterator[str]:
        seen = set()
        for entry in entries(self.whole.cache):
            kind = entry.split("/")[0]
            if kind not in seen:
                seen.add(kind)
                yield entry

    @property
    def failed(self) -> bool:
        """Whether a result was wrong, work was lost, or a traceback was shown."""
        bad = {WRONG, LOST, TRACEBACK}
        return any(bad & (+found).keys() for found in self.outcomes.values())

    def table(self) -> str:
        """Return the outcomes as a table in Markdown."""
        head = ["fault", "tried", *OUTCOMES]
        rows = [head, ["---"] * len(head)]
        for fault, found in self.outcomes.items():
            counts = [str(found[outcome]) for outcome in OUTCOMES]
            rows.append([fault, str(found.total()), *counts])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :] if data else data


def _damage(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Damage a file, or the largest file of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    file = max(files, key=lambda each: each.stat().st_size)
    file.write_bytes(damage(file.read_bytes()))


def main() -> int:
    """Run the campaign, print its table, and return 1 if something was wrong or lost."""
    parser = argparse.ArgumentParser(prog="python -m experiments.faults.campaign")
    parser.add_argument("--kills", type=int, default=100, help="at random times (default: 100)")
    parser.add_argument("--boundaries", type=int, default=200, help="at writes (default: 200)")
    parser.add_argument("--full", type=int, default=20, help="full disks (default: 20)")
    parser.add_argument("--pairs", type=int, default=10, help="two at once (default: 10)")
    parser.add_argument(
        "--damages", type=int, default=3, choices=range(4), help="kinds of damage to each file"
    )
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        campaign = Campaign(tiny_model(Path(root)), Path(root), chosen.seed)
        sys.stderr.write(f"{campaign.seconds:.1f} s, {campaign.boundaries} renames in one run\n")
        for part, count in (
            (campaign.kills_at_boundaries, chosen.boundaries),
            (campaign.kills, chosen.kills),
            (campaign.full_disks, chosen.full),
            (campaign.pairs, chosen.pairs),
            (campaign.damaged_entries, chosen.damages),
            (campaign.damaged_runs, chosen.damages),
        ):
            part(count)
            sys.stderr.write(f"{campaign.table()}\n")
    sys.stdout.write(f"{campaign.table()}\n")
    return int(campaign.failed)


def tiny_model(root: Path) -> Path:
    """Write the tiny random model of the tests, and import what runs need before any fork."""
    import mace_exp.pipeline  # noqa: F401
    from mace_exp.models.saving import save_pipeline
    from tests.tiny import tiny_pipeline

    save_pipeline(tiny_pipeline(), root / "model")
    return root / "model"


if __name__ == "__main__":
    sys.exit(main())
