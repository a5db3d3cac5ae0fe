"""What must survive: the second moment of token states over many prompts, one [d, d] matrix.

Stage 1 and stage 3 need `sum e e^T` over all tokens of the preserved prompts, and nothing else of
them; it is the same matrix for every layer. As a mean over prompts it does not change its meaning
with the number of captions, and a weight on it reads "as many prompts' worth".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from mace_exp.models.devices import as_float64
from mace_exp.models.text import PromptEncoder
from mace_exp.utils.tensors import load_tensors, save_tensors

_HASH_BYTES = 16


@dataclass(frozen=True)
class PreservationStatistics:
    """A sum over prompts, with what is needed to trust it.

    `total` [d, d], float64, is the sum over all L tokens of all prompts of e e^T; `count` the
    number of prompts; `fingerprint` names the text encoder whose states these are; `prompts_hash`
    names the prompts, whatever their order, and adds up as the sums do.
    """

    total: Tensor
    count: int
    fingerprint: str
    prompts_hash: str

    @property
    def mean(self) -> Tensor:
        """Return the mean over prompts of the sum over tokens of e e^T, [d, d]."""
        if self.count == 0:
            raise ValueError("preservation statistics hold no prompt: give at least one")
        return self.total / self.count

    def __add__(self, other: PreservationStatistics) -> PreservationStatistics:
        self.require(other.fingerprint)
        return PreservationStatistics(
            self.total + other.total,
            self.count + other.count,
            self.fingerprint,
            _add_hashes(self.prompts_hash, other.prompts_hash),
        )

    def require(self, fingerprint: str, where: str = "") -> None:
        """Raise ValueError unless these are states of the text encoder with this fingerprint."""
        if self.fingerprint != fingerprint:
            raise ValueError(
                f"{where}preservation statistics belong to the text encoder {self.fingerprint}, not"
                f" to {fingerprint}, this model's: build them again for this model"
            )

    def facts(self) -> dict[str, str]:
        """Return what a file says of the sum in its header."""
        return {
            "count": str(self.count),
            "fingerprint": self.fingerprint,
            "prompts_hash": self.prompts_hash,
        }

    def save(self, path: Path) -> None:
        """Write a safetensors file, atomically."""
        save_tensors(path, {"total": self.total}, self.facts())

    @staticmethod
    def load(path: Path, fingerprint: str) -> PreservationStatistics:
        """Read a file. Raises ValueError for another model's, or for what is no such file."""
        loaded = read_statistics(path)
        loaded.require(fingerprint, f"{path}: ")
        return loaded


def read_statistics(path: Path) -> PreservationStatistics:
    """Read a file, whosever it is. Raises ValueError for what is no such file."""
    try:
        tensors, facts = load_tensors(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} can't be read as a safetensors file: {error}") from error
    missing = {"count", "fingerprint", "prompts_hash"} - facts.keys()
    if missing or tensors.keys() != {"total"}:
        raise ValueError(f"{path} holds no preservation statistics")
    return PreservationStatistics(
        tensors["total"], int(facts["count"]), facts["fingerprint"], facts["prompts_hash"]
    )


class PreservationAccumulator:
    """Sum the token states of prompts as they come; memory is one [d, d] matrix.

    `start` are sums to go on from.
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
        """Add prompts and their hidden states [n, L, d]: wholly, or, if interrupted, not at all."""
        if len(prompts) != len(states):
            raise ValueError(f"{len(prompts)} prompts with the states of {len(states)}")
        more = PreservationStatistics(
            gram(states).cpu(), len(prompts), self._sums.fingerprint, hash_prompts(prompts)
        )
        self._sums = self._sums + more

    def result(self) -> PreservationStatistics:
        """Return the sums so far; what is added later does not change them."""
        return self._sums


def preservation_statistics(
    encoder: PromptEncoder,
    prompts: Sequence[str],
    fingerprint: str,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> PreservationStatistics:
    """Return the statistics of `prompts`; `progress` is told the size of each finished batch."""
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
    device of the states or, where that has no float64, on the CPU."""
    rows = as_float64(states.reshape(-1, states.shape[-1]))
    return rows.mT @ rows


def hash_prompts(prompts: Sequence[str]) -> str:
    """Return the hash of a multiset of prompts: their order does not matter, their number does."""
    total = sum(
        int.from_bytes(blake2b(prompt.encode(), digest_size=_HASH_BYTES).digest(), "big")
        for prompt in prompts
    )
    return _hex(total)


def _add_hashes(first: str, second: str) -> str:
    return _hex(int(first, 16) + int(second, 16))


def _hex(total: int) -> str:
    return f"{total % (1 << 8 * _HASH_BYTES):0{2 * _HASH_BYTES}x}"
