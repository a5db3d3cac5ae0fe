"""Compute statistics of any number of captions; an interrupted build loses seconds of work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from mace_exp.models.text import PromptEncoder
from mace_exp.preservation.statistics import (
    PreservationAccumulator,
    PreservationStatistics,
    hash_prompts,
    read_statistics,
)
from mace_exp.utils.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheBuild:
    """A file of statistics to build at `path`: the text encoder and the captions.

    `fingerprint` identifies the text encoder (`text_fingerprint`). The sums so far are saved in a
    `.partial` file beside `path`, every `save_every` seconds and when the build is interrupted.
    """

    encoder: PromptEncoder
    fingerprint: str
    captions: Sequence[str]
    path: Path
    batch_size: int = 64
    save_every: float = 10.0

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    def run(self, progress: Callable[[int], None] | None = None) -> PreservationStatistics:
        """Write the file and return its statistics; a complete file of the same is not rewritten.

        `progress` is called with the number of captions just encoded, and once with the number that
        an interrupted build had already encoded.

        Raises:
            ValueError: no caption, or the file at `path` is of other captions or another model.
        """
        if not self.captions:
            raise ValueError("captions is empty: at least one caption is needed")
        done = self._finished()
        if done is None:
            done = self._sum(progress or (lambda _: None))
            done.save(self.path)
            self.partial.unlink(missing_ok=True)
        return done

    def _finished(self) -> PreservationStatistics | None:
        if not self.path.exists():
            return None
        found = read_statistics(self.path)
        expected = (self.fingerprint, hash_prompts(self.captions))
        if (found.fingerprint, found.prompts_hash) != expected:
            raise ValueError(
                f"{self.path} holds the sum of other captions or of another text encoder: "
                "choose another file, or remove this one"
            )
        log.info("%s is already complete", self.path)
        return found

    def _sum(self, progress: Callable[[int], None]) -> PreservationStatistics:
        start = self._load_partial()
        done = 0 if start is None else start.count
        progress(done)
        sums = PreservationAccumulator(self.encoder.width, self.fingerprint, start)
        saved = time.monotonic()
        try:
            for states in self.encoder.stream(self.captions[done:], batch_size=self.batch_size):
                sums.add(self.captions[done : done + len(states)], states)
                done += len(states)
                progress(len(states))
                if time.monotonic() - saved > self.save_every:
                    self._save_partial(sums.result())
                    saved = time.monotonic()
        except BaseException:
            if done:
                with suppress(OSError):  # a full disk must not mask the original error
                    self._save_partial(sums.result())
            raise
        return sums.result()

    def _save_partial(self, sums: PreservationStatistics) -> None:
        metadata = sums.facts() | {"list": self._ordered_hash()}
        save_tensors(self.partial, {"total": sums.total}, metadata)

    def _load_partial(self) -> PreservationStatistics | None:
        """Return the sums of an interrupted build of the same list of captions, if there is one."""
        if not self.partial.exists():
            return None
        try:
            partial, metadata = read_statistics(self.partial), load_tensors(self.partial)[1]
        except ValueError:
            log.warning("%s can't be read: starting over", self.partial)
            return None
        if (partial.fingerprint, metadata.get("list")) != (self.fingerprint, self._ordered_hash()):
            log.warning("%s is of other captions or another model: starting over", self.partial)
            return None
        log.info("resuming after %d of %d captions", partial.count, len(self.captions))
        return partial

    def _ordered_hash(self) -> str:
        """Return a hash of the captions in order: a build can only be resumed in the same order."""
        digest = blake2b(digest_size=16)
        for caption in self.captions:
            digest.update(f"{caption}\0".encode())
        return digest.hexdigest()
