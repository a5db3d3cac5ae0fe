"""`python -m experiments.faults.campaign`: kill runs, fill disks, damage files, run two at once.

Every trial interrupts or damages a small run of a tiny random model, resumes it, and compares it
with an uninterrupted run: results must be bit-identical, or a message must name what is wrong. Each
outcome is kept in FOLDER/results.csv; the command continues where an earlier one was stopped. The
files of a trial that went wrong stay in FOLDER.

Prints a table. The exit status is 1 if a result was wrong, finished work was lost or a traceback
was printed.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from experiments.faults.bench import BAD, FAULTS, LORAS, OUTCOMES, Bench, Tried, tiny_model
from mace_exp.utils.files import write_table

COLUMNS = ("loras", "fault", "number", "what", "outcome")
COUNTS = dict(zip(FAULTS, (None, 40, 34, 14, 10, 35, 50), strict=True))
"""Trials of each fault, for each way to train LoRAs. None: all, before and after each boundary."""
Case = tuple[str, str, int]
"""How LoRAs are trained, the fault, and the number of the trial."""


class Campaign:
    """Trials in an order that mixes them, and their outcomes in a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "results.csv"
        self.rows = _read(self.file)

    def run(self, benches: Mapping[str, Bench], cases: list[Case], until: float) -> None:
        """Try the cases that are not in the file until a time (of the monotonic clock)."""
        known = {(loras, fault, int(number)) for loras, fault, number, *_ in self.rows}
        waiting = [case for case in cases if case not in known]
        for done, (loras, fault, number) in enumerate(waiting):
            if time.monotonic() > until:
                break
            tried = FAULTS[fault](benches[loras], number)
            self._keep([loras, fault, str(number), tried.what, tried.outcome], tried)
            sys.stderr.write(f"{done + 1} of {len(waiting)}: {fault}, {tried.what}\n")

    def _keep(self, row: list[str], tried: Tried) -> None:
        self.rows.append(row)
        write_table(self.file, COLUMNS, self.rows)
        if tried.outcome in BAD:
            kept = self.file.with_name("-".join(row[:3]).replace(" ", "_"))
            shutil.copytree(tried.folder, kept, symlinks=True)
            sys.stderr.write(f"{': '.join(row)}, see {kept}\n")

    @property
    def failed(self) -> bool:
        """Whether a result was wrong, work was lost, or a traceback was shown."""
        return any(row[-1] in BAD for row in self.rows)

    def table(self) -> str:
        """Return the outcomes as a table in Markdown."""
        head = ["fault", "LoRAs", "tried", *OUTCOMES]
        lines = [head, ["---"] * len(head)]
        for fault in FAULTS:
            for loras in LORAS:
                found = Counter(row[-1] for row in self.rows if row[:2] == [loras, fault])
                counts = [str(found[outcome]) for outcome in OUTCOMES]
                if found:
                    lines.append([fault, loras, str(found.total()), *counts])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def open_benches(folder: Path) -> Iterator[dict[str, Bench]]:
    """Yield a bench for each way to train LoRAs, whose files are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="model-", dir=folder) as name:
        model = tiny_model(Path(name))
        benches = {loras: Bench(model, folder, loras) for loras in LORAS}
        try:
            yield benches
        finally:
            for bench in benches.values():
                bench.close()


def all_cases(benches: Mapping[str, Bench]) -> list[Case]:
    """Return every case, mixed: those that were tried so far are a fair sample at any time."""
    cases = [
        (loras, fault, number)
        for loras, bench in benches.items()
        for fault, count in COUNTS.items()
        for number in range(bench.boundaries if count is None else count)
    ]
    random.Random(0).shuffle(cases)
    return cases


def _read(file: Path) -> list[list[str]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))[1:]


def main() -> int:
    """Run the campaign, print its table, and return 1 if something was wrong or lost."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.faults.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/faults"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder)
    with open_benches(folder) as benches:
        until = time.monotonic() + 60 * chosen.minutes
        campaign.run(benches, all_cases(benches), until)
    sys.stdout.write(f"{campaign.table()}\n")
    return int(campaign.failed)


if __name__ == "__main__":
    sys.exit(main())
