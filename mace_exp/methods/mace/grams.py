"""Second moments of the concepts' sentences, kept on disk between refinement and fusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mace_exp.utils.hashing import key_of
from mace_exp.utils.scratch import ScratchFile


class GramFile:
    """S_c = sum e e^T [d, d], float64, by the sentences of a concept, in a temporary file.

    Refinement and fusion need the states of the same sentences, before and after the LoRAs are
    trained. With this file every sentence is encoded once, and memory does not grow with the number
    of concepts. The lower triangle of each matrix is stored, d (d + 1) / 2 numbers.
    """

    def __init__(self) -> None:
        self._file = ScratchFile()
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, sentences: Sequence[str], gram: Tensor) -> None:
        """Store the symmetric matrix of these sentences; if the disk is full, it is skipped and
        computed again later."""
        numbers = gram.numpy()[np.tri(len(gram), dtype=bool)]
        place = self._file.append(numbers.astype(np.float64, copy=False).tobytes())
        if place is not None:
            self._places[_key(sentences)] = (place, len(gram))

    def get(self, sentences: Sequence[str]) -> Tensor | None:
        """Return the matrix of these sentences, or None if it is not stored."""
        place = self._places.get(_key(sentences))
        if place is None:
            return None
        offset, width = place
        gram = np.zeros((width, width))
        stored = self._file.read(offset, 8 * width * (width + 1) // 2)
        gram[np.tri(width, dtype=bool)] = np.frombuffer(stored)
        lower = torch.from_numpy(gram)
        return lower + lower.tril(-1).mT


def _key(sentences: Sequence[str]) -> str:
    return key_of({"sentences": sorted(sentences)})
