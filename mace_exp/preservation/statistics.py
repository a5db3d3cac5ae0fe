"""Preservation statistics: the second moment of token states over the prompts to preserve.

Stages 1 and 3 depend on these prompts only through `sum e e^T` over all their tokens, one [d, d]
matrix for all layers. As a mean over prompts it converges as captions are added, and a weight on it
is a number of prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from mace_exp.models.devices import as_float64
from mace_exp.models.text import PromptEncoder
from mace_exp.utils.tensors import load_tensors, save_tensors

_HASH_BYTES = 16
SYMMETRY = 1e-5
"""By which two numbers of a sum may differ, relative to the largest: published ones are float32."""


@dataclass(frozen=True)
class PreservationStatistics:
    """A sum over prompts, with the identity of the prompts and of the text encoder.

    `total` [d, d], float64, is the sum over all L tokens of all prompts of e e^T; `count` the
    number of prompts; `fingerprint` identifies the text encoder; `prompts_hash` identifies the
    prompts regardless of order, and is additive like the sums.
    """

    total: Tensor
    count: int
    fingerprint: str
    prompts_hash: str

    @property
    def mean(self) -> Tensor:
        """Return the mean over prompts of the sum over tokens of e e^T, [d, d].

        Raises ValueError if there is no prompt.
        """
        if self.count == 0:
            raise ValueError("preservation statistics hold no prompt: give at least one")
        return self.total / self.count

    def __add__(self, other: PreservationStatistics) -> PreservationStatistics:
        self.require(other.fingerprint)
        return PreservationStatistics(
            self.total + other.total,
            self.count + other.count,
            self.fingerprint,
            _hex(int(self.prompts_hash, 16) + int(other.prompts_hash, 16)),
        )

    def require(self, fingerprint: str, where: str = "") -> None:
        """Raise ValueError unless the states are those of the text encoder with this fingerprint.

        `where` is a prefix for the message.
        """
        if self.fingerprint != fingerprint:
            raise ValueError(
                f"{where}preservation statistics belong to the text encoder {self.fingerprint}, not"
                f" to {fingerprint} of this model: build them again for this model"
            )

    def facts(self) -> dict[str, str]:
        """Return the metadata in a file's header."""
        return {
            "count": str(self.count),
            "fingerprint": self.fingerprint,
            "prompts_hash": self.prompts_hash,
        }

    def save(self, path: Path) -> None:
        """Write a safetensors file, atomically."""
        save_tensors(path, {"total": self.total}, self.facts())

    @staticmethod
    def load(path: Path, fingerprint: str, width: int | None = None) -> PreservationStatistics:
        """Read a file.

        `width` is that of the text encoder's states, for a file of unknown origin.

        Raises ValueError if it belongs to another text encoder, or as `read_statistics`.
        """
        loaded = read_statistics(path)
        loaded.require(fingerprint, f"{path}: ")
        if width not in (None, len(loaded.total)):
            raise ValueError(
                f"{path} holds a matrix of width {len(loaded.total)}, and the states of this "
                f"model's text encoder have {width} numbers: build it again for this model"
            )
        return loaded


def read_statistics(path: Path) -> PreservationStatistics:
    """Read statistics without checking which text encoder they belong to.

    Raises ValueError if the file can't be read or does not hold preservation statistics: a sum of
    e e^T is square, symmetric, finite, and no number exceeds those on the diagonal.
    """
    try:
        tensors, facts = load_tensors(path)
    except OSError as error:
        raise ValueError(f"{path} can't be read as a safetensors file: {error}") from error
    missing = {"count", "fingerprint", "prompts_hash"} - facts.keys()
    if missing or tensors.keys() != {"total"}:
        raise ValueError(f"{path} holds no preservation statistics")
    fault = _fault(tensors["total"], facts)
    if fault:
        raise ValueError(f"{path} holds no preservation statistics: {fault}")
    return PreservationStatistics(
        tensors["total"], int(facts["count"]), facts["fingerprint"], facts["prompts_hash"]
    )


def _fault(total: Tensor, facts: Mapping[str, str]) -> str | None:
    """Say why a matrix can't be a sum of e e^T over at least one prompt, or None."""
    shape = list(total.shape)
    if not facts["count"].isdecimal() or int(facts["count"]) < 1:
        return f"its count of prompts is {facts['count']!r}"
    if not re.fullmatch(r"[0-9a-f]{32}", facts["prompts_hash"]):
        return f"its hash of prompts is {facts['prompts_hash']!r}"
    if len(shape) != 2 or shape[0] != shape[1] or not total.is_floating_point():
        return f"its tensor is {total.dtype} {shape}, not a square matrix of numbers"
    values = total.double()
    if not values.isfinite().all():
        return "its matrix has numbers that are not finite"
    diagonal, largest = values.diagonal(), float(values.abs().max())
    if largest == 0 or float(diagonal.min()) < 0 or largest > float(diagonal.max()) * (1 + 1e-6):
        return "its matrix is no sum of squares"
    if float((values - values.mT).abs().max()) > SYMMETRY * largest:
        return "its matrix is not symmetric"
    return None


class PreservationAccumulator:
    """Accumulate the second moment of token states batch by batch, in one [d, d] matrix.

    `start` holds earlier sums to continue from.

    Raises ValueError if `start` belongs to another text encoder.
    """

    def __init__(
        self, width: int, fingerprint: str, start: PreservationStatistics | None = None
    ) -> None:
        if start is None:
            empty = torch.zeros(width, width, dtype=torch.float64)
            start = PreservationStatistics(empty, 0, fingerprint, hash_prompts([]))
        start.require(fingerprint)
        self._sums = start

    def add(self, prompts: Sequence[str], states: Tensor) -> None:
        """Add n prompts and their hidden states [n, L, d]: all, or none if interrupted.

        Raises ValueError if the numbers of prompts and states differ.
        """
        if len(prompts) != len(states):
            raise ValueError(f"{len(prompts)} prompts with the states of {len(states)}")
        batch = PreservationStatistics(
            gram(states).cpu(), len(prompts), self._sums.fingerprint, hash_prompts(prompts)
        )
        self._sums = self._sums + batch

    def result(self) -> PreservationStatistics:
        """Return the sums so far, as an immutable snapshot."""
        return self._sums


def preservation_statistics(
    encoder: PromptEncoder,
    prompts: Sequence[str],
    fingerprint: str,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> PreservationStatistics:
    """Return the statistics of `prompts`; `progress` is called with the size of each batch."""
    sums = PreservationAccumulator(encoder.width, fingerprint)
    done = 0
    for states in encoder.stream(prompts, batch_size=batch_size):
        sums.add(prompts[done : done + len(states)], states)
        done += len(states)
        if progress is not None:
            progress(len(states))
    return sums.result()


def gram(states: Tensor) -> Tensor:
    """Return sum e e^T over all leading dimensions of states [..., d], [d, d] in float64: on the
    device of the states or, if that has no float64, on the CPU."""
    rows = as_float64(states.reshape(-1, states.shape[-1]))
    return rows.mT @ rows


def hash_prompts(prompts: Sequence[str]) -> str:
    """Return the hash of a multiset of prompts: independent of their order, not of repetition."""
    total = sum(
        int.from_bytes(blake2b(prompt.encode(), digest_size=_HASH_BYTES).digest(), "big")
        for prompt in prompts
    )
    return _hex(total)


def _hex(total: int) -> str:
    return f"{total % (1 << 8 * _HASH_BYTES):0{2 * _HASH_BYTES}x}"
