"""How torch's threads wait for each other on the processor."""

from __future__ import annotations

import os

SPINS = "10000"
"""Turns that a thread of GNU's OpenMP waits actively at a barrier before it sleeps. By default it
waits far longer: beside other busy processes, threads that have finished then hold the processors
from those that have not (experiments/drawing_speed has figures)."""


def limit_spinning() -> None:
    """Let waiting threads sleep soon, unless the environment says how they wait.

    Only before torch is imported: its OpenMP library reads the environment once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
