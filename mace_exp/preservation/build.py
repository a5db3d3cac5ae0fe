"""Build a cache out of any number of captions: a kill costs seconds of it, never the whole."""

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
    """One cache to build: whose states, of which captions, into which file.

    `fingerprint` names the text encoder (`text_fingerprint`). What is done so far lies beside
    `path` in a `.partial` file, written every `save_every` seconds and when the build is stopped.
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
        """Write the file and return what it holds; a finished file of the same is left alone.

        `progress` hears how many captions were just done, those of an earlier, stopped build too.

        Raises:
            ValueError: no caption, or a file at `path` that holds other captions or another model.
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
        wanted = (self.fingerprint, hash_prompts(self.captions))
        if (found.fingerprint, found.prompts_hash) != wanted:
            raise ValueError(
                f"{self.path} holds the sum of other captions or of another text encoder: "
                "name another file, or remove it"
            )
        log.info("%s is complete already", self.path)
        return found

    def _sum(self, progress: Callable[[int], None]) -> PreservationStatistics:
        start = self._begun()
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
                    self._keep(sums.result())
                    saved = time.monotonic()
        except BaseException:
            with suppress(OSError):  # no room left must not hide why the build stopped
                self._keep(sums.result())
            raise
        return sums.result()

    def _keep(self, so_far: PreservationStatistics) -> None:
        save_tensors(self.partial, {"total": so_far.total}, so_far.facts() | {"list": self._list()})

    def _begun(self) -> PreservationStatistics | None:
        """Return the sums of a stopped build of this very list, if there was one."""
        if not self.partial.exists():
            return None
        try:
            begun, facts = read_statistics(self.partial), load_tensors(self.partial)[1]
        except ValueError:
            log.warning("%s can't be read: the build starts anew", self.partial)
            return None
        if (begun.fingerprint, facts.get("list")) != (self.fingerprint, self._list()):
            log.warning("%s is of other captions or another model: starting anew", self.partial)
            return None
        log.info("going on after %d of %d captions", begun.count, len(self.captions))
        return begun

    def _list(self) -> str:
        """Name the captions in their order: only in that order can a build go on."""
        digest = blake2b(digest_size=16)
        for caption in self.captions:
            digest.update(f"{caption}\0".encode())
        return digest.hexdigest()
