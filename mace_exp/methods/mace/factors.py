"""Low-rank terms of many LoRAs: in memory up to a total rank, beyond it in a temporary file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.utils.scratch import ScratchFile


@dataclass(frozen=True)
class LowRank:
    """Low-rank factors of one projection: `up` [d_out, r], in the dtype of the LoRA, and `down`
    [r, d], float64; both on the CPU."""

    up: Tensor
    down: Tensor

    def load(self) -> LowRank:
        """Return the factors themselves, as `StoredLowRank` does."""
        return self

    def product(self) -> Tensor:
        """Return up @ down, [d_out, d], float64."""
        return self.up.double() @ self.down


@dataclass(frozen=True)
class StoredLowRank:
    """Low-rank factors from byte `place` of a file on: `up.mT` [r, d_out] in `dtype`, then `down`
    [r, d] in float64."""

    file: ScratchFile
    place: int
    rank: int
    outputs: int
    inputs: int
    dtype: torch.dtype

    def load(self) -> LowRank:
        """Read the factors."""
        split = self.rank * self.outputs * self.dtype.itemsize
        data = self.file.read(self.place, split + self.rank * self.inputs * 8)
        up = torch.frombuffer(data, dtype=self.dtype, count=self.rank * self.outputs)
        down = torch.frombuffer(data, dtype=torch.float64, offset=split)
        return LowRank(up.view(self.rank, -1).mT, down.view(self.rank, -1))


Term = LowRank | StoredLowRank
"""One term of a sum of low-rank matrices; `load` returns its factors."""


def stored(pair: LowRank, file: ScratchFile) -> Term:
    """Append factors to a file; if the disk is full, return a copy, which remains in memory."""
    up = pair.up.mT.contiguous()
    place = file.append(up.numpy().tobytes() + pair.down.numpy().tobytes())
    if place is None:
        return LowRank(pair.up.clone(), pair.down.clone())
    (rank, outputs), inputs = up.shape, pair.down.shape[1]
    return StoredLowRank(file, place, rank, outputs, inputs, up.dtype)


class FactorStack:
    """The low-rank terms of one projection, side by side in preallocated memory: many small tensors
    between large temporary ones would fragment the heap. A full stack is appended to `file`."""

    def __init__(self, first: LowRank, capacity: int, file: ScratchFile) -> None:
        (outputs, _), (_, inputs) = first.up.shape, first.down.shape
        self._ups = torch.empty(capacity, outputs, dtype=first.up.dtype)
        self._downs = torch.empty(capacity, inputs, dtype=torch.float64)
        self._file, self._used = file, 0
        self._stored: list[Term] = []

    def add(self, pair: LowRank) -> None:
        """Add one term."""
        rank = len(pair.down)
        if self._used + rank > len(self._downs):
            self._store()
        if rank > len(self._downs):
            self._stored.append(stored(pair, self._file))
            return
        self._ups[self._used : self._used + rank] = pair.up.mT
        self._downs[self._used : self._used + rank] = pair.down
        self._used += rank

    def terms(self) -> tuple[Term, ...]:
        """Return the sum of all terms added, as few terms; they share the memory of the stack, so
        add nothing afterwards."""
        return (*self._stored, *([self._held()] if self._used else []))

    def _store(self) -> None:
        if self._used:
            self._stored.append(stored(self._held(), self._file))
            self._used = 0

    def _held(self) -> LowRank:
        return LowRank(self._ups[: self._used].mT, self._downs[: self._used])
