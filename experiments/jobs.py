"""Runs of a study, each as a process of its own; those that are finished are not run again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


def run_module(module: str, arguments: Sequence[str]) -> bool:
    """Run `python -m module` in the folder of the repository; return whether it succeeded."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0


def is_finished(run: Path) -> bool:
    """Return whether the run in a folder has finished."""
    status = run / "status.json"
    return status.exists() and read_json(status).get("status") == "finished"


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run."""
    return json.loads(path.read_text(encoding="utf-8"))
