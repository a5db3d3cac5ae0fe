"""Weights & Biases' own offline reader: what a run left, as its users read it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

READ_SECONDS = 60


def offline_run(run_dir: Path) -> Path:
    """The one transaction log of a run (`latest-run` is a link to the same folder)."""
    (found,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    return found


@cache
def inspect(path: Path, *options: str) -> str:
    """Read a log that has been closed, once."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", str(path), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=READ_SECONDS, check=True)
    return done.stdout


def records(run_dir: Path, kind: str) -> list[dict]:
    lines = map(json.loads, inspect(offline_run(run_dir)).splitlines())
    return [line[kind] for line in lines if line["type"] == kind]


def overview(run_dir: Path) -> dict:
    return json.loads(inspect(offline_run(run_dir), "--summary"))
