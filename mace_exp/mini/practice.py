"""How often the denoiser is shown each subject: the more, the less of it the judge recognises."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mace_exp.utils.files import atomic_file

MORE = {0: 3.0, 9_750: 9.0, 10_500: 40.0, 11_400: 400.0}
"""From these steps on: a subject that is never recognised is shown 1 + so many times as often as
one that always is. The last that are missed differ from another in a line of their hair."""
MEMORY = 0.5
"""Part of the rate that the newest pictures do not replace: one picture a person tells little."""


class Practice:
    """Weights of pictures by subject, and the rates that they follow, kept in a file.

    `subjects` [n] is the class of each picture among `names`; `base` [n] how often it is shown if
    it is recognised. Subjects without a rate, such as nobody, keep their base.
    """

    def __init__(
        self, subjects: np.ndarray, names: Sequence[str], base: np.ndarray, file: Path
    ) -> None:
        self._subjects, self._names, self._base, self._file = subjects, names, base, file
        self._rates: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def update(self, recognised: Mapping[str, float]) -> None:
        """Take in how often the judge recognised each subject, in [0, 1], and keep it."""
        for name, rate in recognised.items():
            before = self._rates.get(name, rate)
            self._rates[name] = MEMORY * before + (1 - MEMORY) * rate
        with atomic_file(self._file) as file:
            file.write_text(json.dumps(self._rates, indent=1), encoding="utf-8")

    def weights(self, step: int) -> Tensor:
        """Return how often each picture is shown at a step of training, [n], of no unit."""
        more = MORE[max(start for start in MORE if start <= step)]
        times = [1 + more * (1 - self._rates.get(name, 1.0)) for name in self._names]
        return torch.from_numpy(self._base * np.array(times)[self._subjects])
