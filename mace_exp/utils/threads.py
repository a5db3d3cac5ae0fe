"""How torch's OpenMP threads wait for each other."""

from __future__ import annotations

import os

SPINS = "10000"
"""Iterations for which a thread of GNU OpenMP spins at a barrier before it sleeps. The default is
far higher: with other busy processes, waiting threads then take processor time from those that
still compute (experiments/drawing_speed has figures)."""


def limit_spinning() -> None:
    """Let waiting threads sleep soon, unless the environment sets how they wait.

    Call it before torch is imported, because its OpenMP library reads the environment once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
