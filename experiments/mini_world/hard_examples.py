"""Hard-example weighting: subjects that the judge misses are shown to the denoiser more often."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mace_exp.utils.files import atomic_file

EXTRA = {0: 3.0, 9_750: 9.0, 10_500: 40.0, 11_400: 400.0}
"""By first step: a subject that is never recognised is shown 1 + this many times as often as one
that always is. It grows because the people missed last differ from others in a line of their hair.
"""
MEMORY = 0.5
"""Decay of the moving average of recognition rates: each probe draws few pictures per subject."""


class HardExamples:
    """Sampling weights of pictures, from recognition rates that are kept in `file`.

    `subjects` [n] holds the class of each picture as an index into `names`, `base` [n] its weight
    if the subject is always recognised. Subjects without a rate, such as nobody, keep their base
    weight.
    """

    def __init__(
        self, subjects: np.ndarray, names: Sequence[str], base: np.ndarray, *, file: Path
    ) -> None:
        self._subjects, self._names, self._base, self._file = subjects, names, base, file
        self._rates: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def update(self, recognised: Mapping[str, float]) -> None:
        """Update the moving averages with new recognition rates, in [0, 1], and save them."""
        for name, rate in recognised.items():
            before = self._rates.get(name, rate)
            self._rates[name] = MEMORY * before + (1 - MEMORY) * rate
        with atomic_file(self._file) as file:
            file.write_text(json.dumps(self._rates, indent=1), encoding="utf-8")

    def weights(self, step: int) -> Tensor:
        """Return the unnormalised sampling weight of each picture at a training step, [n]."""
        extra = EXTRA[max(start for start in EXTRA if start <= step)]
        times = [1 + extra * (1 - self._rates.get(name, 1.0)) for name in self._names]
        return torch.from_numpy(self._base * np.array(times)[self._subjects])
