"""The contact sheet of a sweep: one column per prompt and seed, one row per job.

Jobs with the same settings of model and sampling have the same original images (given prompt and
seed), and share one row of originals above their rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mace_exp.report.galleries import Pair
from mace_exp.report.jobs import Job
from mace_exp.report.metrics_view import PARTS, part_title
from mace_exp.report.pictures import Thumbnails, in_turn
from mace_exp.report.read_run import Sample

SHEET_BYTES = 2_100_000  # of base64
EDGE, QUALITY = 128, 72
COLUMNS = {"erased": 6}
OTHER_COLUMNS = 3

Prompt = tuple[str, str, str]
"""Part, prompt and seed."""


@dataclass(frozen=True)
class Heading:
    """A column of the sheet; `first` marks the first column of a part that spans `span` columns."""

    part: str
    prompt: str
    seed: str
    first: bool = False
    span: int = 0


@dataclass(frozen=True)
class SheetRow:
    """A job's images after the edit, or (without a job) those of the original model."""

    group: int
    job: Job | None
    pairs: list[Pair | None]


@dataclass(frozen=True)
class Sheet:
    """The columns within the byte budget, out of `total`."""

    headings: list[Heading]
    rows: list[SheetRow]
    total: int


def sheet(jobs: Sequence[Job]) -> Sheet | None:
    """Choose prompts and encode their images within the budget; None if there are none."""
    sampled = [
        (job, {(s.part, s.prompt, s.seed): s for s in job.run.samples})
        for job in jobs
        if job.run.samples
    ]
    prompts = choose(sampled)
    groups = _groups([job for job, _ in sampled])
    thumbnails = Thumbnails(SHEET_BYTES, edge=EDGE, quality=QUALITY)
    columns: dict[Prompt, list[Pair | None]] = {}
    for prompt in prompts:
        if thumbnails.spent:
            break
        found = [samples.get(prompt) for _, samples in sampled]
        befores = _originals(found, groups)
        columns[prompt] = [
            _pair(sample, befores.get(group), thumbnails)
            for sample, group in zip(found, groups, strict=True)
        ]
    columns = {p: pairs for p, pairs in columns.items() if any(q and q.after for q in pairs)}
    if not columns:
        return None
    total = len({prompt for _, samples in sampled for prompt in samples})
    order = sorted(columns, key=lambda p: _part_place(p[0]))
    rows = _rows([job for job, _ in sampled], groups, [columns[p] for p in order])
    return Sheet(_headings(order), rows, total)


def choose(sampled: Sequence[tuple[Job, dict[Prompt, Sample]]]) -> list[Prompt]:
    """Return prompts shared by most jobs, alternating over parts and concepts."""
    count = Counter(prompt for _, samples in sampled for prompt in samples)
    first = {
        prompt: sample for _, samples in reversed(sampled) for prompt, sample in samples.items()
    }
    shared = sorted(first, key=lambda p: -count[p])
    chosen: list[Sample] = []
    for part in sorted({p[0] for p in shared}, key=lambda each: (_part_place(each), each)):
        candidates = in_turn([first[p] for p in shared if p[0] == part], by="concept")
        limit = COLUMNS.get(part, OTHER_COLUMNS)
        chosen += [sample for sample, _ in zip(candidates, range(limit), strict=False)]
    return [(s.part, s.prompt, s.seed) for s in in_turn(chosen, by="part")]


def _part_place(part: str) -> int:
    return list(PARTS).index(part) if part in PARTS else len(PARTS)


def _groups(jobs: Sequence[Job]) -> list[int]:
    """Return for each job the number of its original images' settings."""
    known: dict[str, int] = {}
    settings = [
        json.dumps([job.run.config.get("model"), job.run.config.get("sampling")], default=str)
        for job in jobs
    ]
    return [known.setdefault(each, len(known)) for each in settings]


def _originals(found: Sequence[Sample | None], groups: Sequence[int]) -> dict[int, Sample]:
    """Return for each group the first sample that has an original image."""
    befores: dict[int, Sample] = {}
    for sample, group in zip(found, groups, strict=True):
        if sample and sample.before:
            befores.setdefault(group, sample)
    return befores


def _pair(sample: Sample | None, before: Sample | None, thumbnails: Thumbnails) -> Pair | None:
    if sample is None:
        return None
    return Pair(
        sample, thumbnails.uri(before.before if before else None), thumbnails.uri(sample.after)
    )


def _headings(order: Sequence[Prompt]) -> list[Heading]:
    spans = Counter(part for part, _, _ in order)
    seen: set[str] = set()
    headings = []
    for part, prompt, seed in order:
        headings.append(Heading(part_title(part), prompt, seed, part not in seen, spans[part]))
        seen.add(part)
    return headings


def _rows(
    jobs: Sequence[Job], groups: Sequence[int], columns: Sequence[Sequence[Pair | None]]
) -> list[SheetRow]:
    """Return a row of originals per group, followed by the rows of its jobs."""
    rows: list[SheetRow] = []
    for group in dict.fromkeys(groups):
        members = [index for index, each in enumerate(groups) if each == group]
        originals = [
            next((c[i] for i in members if c[i] and c[i].before), None)  # type: ignore[union-attr]
            for c in columns
        ]
        rows.append(SheetRow(group, None, originals))
        rows += [SheetRow(group, jobs[i], [c[i] for c in columns]) for i in members]
    return rows
