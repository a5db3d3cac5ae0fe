"""Sweep folders as a pipeline leaves them, without training or drawing."""

from __future__ import annotations

import math
import random
from pathlib import Path

from tests.fake_run import (
    ERASED,
    make_failed_run,
    write_config,
    write_metrics,
    write_rows,
    write_samples,
    write_status,
)


def make_grid_sweep(path: Path, *, each: int = 1) -> Path:
    """Twenty jobs with pictures: ten weights by two ranks; the last one failed."""
    weights = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]
    for number, (weight, rank) in enumerate((w, r) for w in weights for r in (1, 4)):
        job = path / str(number)
        job.mkdir(parents=True)
        if number == 19:
            make_failed_run(job)
            write_config(job, ERASED[:5], {"preservation.domain_weight": weight, "lora.rank": rank})
            continue
        strength = math.log10(weight / 0.1) / 4.5
        remembered = 0.45 * strength**3 * (1.4 if rank == 1 else 0.8)
        lost = 0.5 * (1 - strength) ** 2 * (0.8 if rank == 1 else 1.1)
        write_config(job, ERASED[:5], {"preservation.domain_weight": weight, "lora.rank": rank})
        write_status(job, {"status": "finished", "stage": "report", "error": None})
        write_metrics(job, ERASED[:5], remembered, lost)
        write_rows(job, ERASED[:5], slower=1 + strength)
        write_samples(
            job,
            ERASED[:5],
            each,
            forgets=lambda part, i, r=remembered, o=lost: (
                random.Random(f"{part}{i}").random() > r
                if part == "erased"
                else random.Random(f"{part}{i}").random() < o
            ),
        )
    return path


def make_sweep(path: Path) -> Path:
    """Five finished jobs and one that failed."""
    trade = [(1, 0.0, 0.3), (10, 0.0, 0.12), (100, 0.01, 0.03), (300, 0.03, 0.0), (1000, 0.2, 0.01)]
    for number, (weight, remembered, lost) in enumerate(trade):
        job = path / str(number)
        job.mkdir(parents=True)
        changes = {"preservation.domain_weight": weight, "lora.rank": 1 + 3 * (number % 2)}
        write_config(job, ERASED[:5], changes)
        write_status(job, {"status": "finished", "stage": "report", "error": None})
        write_metrics(job, ERASED[:5], remembered, lost)
        write_rows(job, ERASED[:5], steps=5)
    make_failed_run(path / "10")
    return path
