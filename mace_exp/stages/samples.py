"""Stage samples: pictures of the model before and after the edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from torch import Tensor

from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.methods.base import Edit
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.sampling import Samples, SamplingSettings, sample_batches
from mace_exp.models.text_states import prompts_with_same_states
from mace_exp.runs.cache import seal
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.stages.sample_files import STAGE, SuiteSamples, read_after, write_samples
from mace_exp.utils.files import atomic_file, save_array
from mace_exp.utils.progress import progress

EDITED = "edited"
"""The kind of cache entries for pictures after the edit; that of those before is the stage's name.
"""
VERSION = 1
SUFFIX = ".npy"
SHARD_SIZE = 64
"""Largest number of pictures per cache entry, which a killed run may lose."""

Shard = tuple[list[EvaluationPrompt], Path | None]
"""Prompts, and the path of the cache entry for their pictures; None if it exists."""
Job = list[Shard]
"""Shards that are drawn together."""


def draw_suite(
    context: Context,
    suite: Sequence[EvaluationPrompt],
    sampling: SamplingSettings,
    edit: Result[Edit],
) -> Result[SuiteSamples]:
    """Draw the evaluation's prompts with the original model and with the edited one.

    Cached pictures are reused. A run without this stage reads the pictures in its folder.
    """
    drawing = _Drawing(context, suite, sampling)
    key = result_key(STAGE, VERSION, edit=edit.key, before=drawing.keys(STAGE))
    phases = {STAGE: None} | ({EDITED: edit.key} if context.may_make(STAGE) else {})

    def make() -> SuiteSamples:
        before = drawing.pictures(STAGE, None)
        if context.may_make(STAGE):
            drawn = SuiteSamples(suite, before, drawing.pictures(EDITED, edit, before))
            write_samples(context, drawn, key)
        else:
            drawn = SuiteSamples(suite, before, read_after(context, len(suite), key))
        return drawn

    stored = {kind: drawing.entries(kind, edited) for kind, edited in phases.items()}
    together = [names for each in phases.items() for names in drawing.batches(*each)]
    return Result(key, make, stored=stored, together=together)


@dataclass(frozen=True)
class _Drawing:
    """Draws a suite shard by shard; a shard is pictures of one subject."""

    context: Context
    suite: Sequence[EvaluationPrompt]
    sampling: SamplingSettings

    def keys(self, kind: str, edit: str | None = None) -> dict[str, str]:
        """Return the key of every shard, by number; `edit` is the key of the edit, if any."""
        shared = self.context.model.drawn_by() | ({} if edit is None else {"edit": edit})
        sampling = asdict(self.sampling) | {"batch_size": None}
        return {
            name: result_key(
                kind,
                VERSION,
                pictures=[(each.prompt, each.seed) for each in shard],
                sampling=sampling,
                **shared,
            )
            for name, shard in shards(self.suite).items()
        }

    def entries(self, kind: str, edit: str | None) -> dict[str, int]:
        """Return the names of the cache entries of all shards, with the pictures in each."""
        pieces = shards(self.suite)
        return {f"{k}{SUFFIX}": len(pieces[name]) for name, k in self.keys(kind, edit).items()}

    def batches(self, kind: str, edit: str | None) -> list[set[str]]:
        """Return the names of the cache entries that are drawn in the same batches."""
        keys, drawn = self.keys(kind, edit), self._drawn(kind, edit)
        found = groups(drawn, self.sampling.batch_size)
        return [{f"{keys[name]}{SUFFIX}" for name in names} for names in found]

    def _drawn(self, kind: str, edit: str | None) -> dict[str, list[EvaluationPrompt]]:
        """Return the shards without repeated ones: a neighbour in the retain set can have the same
        prompts, and so the same key."""
        keys, pieces = self.keys(kind, edit), shards(self.suite)
        first = {key: name for name, key in reversed(keys.items())}
        return {name: pieces[name] for name in pieces if first[keys[name]] == name}

    def pictures(
        self, kind: str, edit: Result[Edit] | None, before: np.ndarray | None = None
    ) -> np.ndarray:
        """Return all pictures [n, H, W, 3] with the edited weights (None: the original ones).

        `before` are the original model's, from which those that the edit can't change are copied.
        """
        shared, edited = self.context, None if edit is None else edit.key
        keys = self.keys(kind, edited)

        def make(missing: Mapping[str, Path]) -> None:
            weights = None if edit is None else _on_cpu(edit.value.weights)
            drawn = self._drawn(kind, edited)
            jobs = [
                [(drawn[name], missing.get(name)) for name in group]
                for group in groups(drawn, self.sampling.batch_size)
                if not missing.keys().isdisjoint(group)
            ]
            if weights is not None and before is not None:
                jobs = self._not_copied(jobs, weights, before)
            shared.ranks.map(partial(_draw_share, self.sampling, weights), shared, jobs)

        entries = shared.entries(STAGE, kind, keys, make, suffix=SUFFIX)
        return _read(entries, len(self.suite))

    def _not_copied(
        self, jobs: Sequence[Job], weights: Mapping[str, Tensor], before: np.ndarray
    ) -> list[Job]:
        """Copy the pictures of jobs for which the denoiser reads the same states as before; return
        the other jobs, which are drawn as a whole: the last digits of a picture depend on the batch
        that it is drawn in."""
        guided = self.sampling.guidance > 1
        prompts = [each.prompt for job in jobs for shard, _ in job for each in shard]
        pipeline = self.context.model.pipeline
        same = prompts_with_same_states(pipeline, weights, prompts, guided=guided)
        rows = {(each.prompt, each.seed): row for row, each in enumerate(self.suite)}
        left = []
        for job in jobs:
            if any(each.prompt not in same for shard, _ in job for each in shard):
                left.append(job)
                continue
            for shard, entry in job:
                if entry is not None:
                    _keep([before[rows[each.prompt, each.seed]] for each in shard], entry)
                    self.context.cache.not_drawn += len(shard)
        return left


def shards(suite: Sequence[EvaluationPrompt]) -> dict[str, list[EvaluationPrompt]]:
    """Split a suite into shards of one subject each, `SHARD_SIZE` at most, by number."""
    subjects = (list(group) for _, group in groupby(suite, key=lambda e: (e.part, e.concept)))
    found = [
        each[start : start + SHARD_SIZE]
        for each in subjects
        for start in range(0, len(each), SHARD_SIZE)
    ]
    return {str(number): shard for number, shard in enumerate(found)}


def groups(pieces: Mapping[str, Sequence[EvaluationPrompt]], batch_size: int) -> list[list[str]]:
    """Return the names of the shards that are drawn together: consecutive ones, until a batch is
    full, whether or not some are cached. So a resumed run has the same batches as an uninterrupted
    one, and its pictures are bit-identical."""
    found: list[list[str]] = []
    size = batch_size
    for name, shard in pieces.items():
        if size + len(shard) > batch_size:
            found.append([])
            size = 0
        found[-1].append(name)
        size += len(shard)
    return found


def _draw_share(
    sampling: SamplingSettings,
    weights: Mapping[str, Tensor] | None,
    context: Context,
    jobs: Sequence[Job],
) -> None:
    """Draw a rank's share; each shard is cached when its last picture is drawn, so that a run that
    is preempted or killed continues from there."""
    waiting = [shard for group in jobs for shard in group]
    wanted = [each for shard, _ in waiting for each in shard]
    drawn: list[np.ndarray] = []
    label = "samples before" if weights is None else "samples after"
    pipeline = context.model.pipeline
    with (
        edited_pipeline(pipeline, weights or {}),
        progress(label, len(wanted), "image") as advance,
    ):

        def take(batch: Samples) -> None:
            drawn.extend(batch.images)
            while waiting and len(drawn) >= len(waiting[0][0]):
                shard, entry = waiting.pop(0)
                if entry is not None:
                    _keep(drawn[: len(shard)], entry)
                del drawn[: len(shard)]
            advance(len(batch.images))

        texts, seeds = [each.prompt for each in wanted], [each.seed for each in wanted]
        pieces = [sum(len(shard) for shard, _ in group) for group in jobs]
        sample_batches(pipeline, texts, seeds, sampling, take, pieces=pieces)


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu() for name, weight in weights.items()}


def _keep(images: Sequence[np.ndarray], entry: Path) -> None:
    with atomic_file(entry) as temporary:
        save_array(temporary, np.stack(images))
    seal(entry)


def _read(entries: Mapping[str, Path], count: int) -> np.ndarray:
    """Return all pictures, [count, H, W, 3], without a second copy: thousands of large ones hardly
    fit into memory."""
    pictures, start = None, 0
    for path in entries.values():
        part = np.load(path)
        if pictures is None:
            pictures = np.empty((count, *part.shape[1:]), part.dtype)
        pictures[start : start + len(part)] = part
        start += len(part)
    assert pictures is not None and start == count
    return pictures
