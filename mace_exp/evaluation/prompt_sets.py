"""Parts of the evaluation from files of prompts: `evaluation.prompt_sets`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.prompt_files import FIELDS, PromptRow, read_prompts
from mace_exp.evaluation.prompts import (
    ERASED,
    OBJECTS,
    PRESERVED,
    STYLES,
    EvaluationPrompt,
    check_part_name,
)
from mace_exp.utils.seeding import derive, short_seed

KEY = "evaluation.prompt_sets"
NAMED = (ERASED, PRESERVED, OBJECTS, STYLES)
"""Parts whose subjects the configuration lists."""


@dataclass(kw_only=True)
class PromptColumns:
    """Accepted column names of a table, in order of precedence."""

    prompt: list[str]
    seed: list[str]
    concept: list[str]
    part: list[str]

    def by_field(self) -> dict[str, list[str]]:
        """Return the column names by field."""
        return {field: getattr(self, field) for field in FIELDS}


@dataclass(kw_only=True)
class PromptSetsConfig:
    """Files of prompts that are parts of the evaluation."""

    files: dict[str, str]  # by the part of the rows that name none
    counts: dict[str, int]  # size of a random subset, by the same names; others: all prompts
    columns: PromptColumns

    def __post_init__(self) -> None:
        for name in self.files:
            try:
                check_part_name(name)
            except ValueError as error:
                raise ValueError(f"{KEY}.files: {error}") from None
        for name, count in self.counts.items():
            if name not in self.files:
                known = ", ".join(self.files) or "none"
                raise ValueError(f"{KEY}.counts names {name!r}, which is none of .files: {known}")
            if count < 1:
                raise ValueError(f"{KEY}.counts.{name} = {count}: at least 1")

    def prompts(self, seed: int, subjects: Mapping[str, Sequence[str]]) -> list[EvaluationPrompt]:
        """Return the prompts of all files; `subjects` are the names that a run lists, by part.

        Raises:
            ValueError: as `read_prompts`, or a file has fewer prompts than `counts` asks for.
        """
        return joined([each for name in self.files for each in self._of_file(name, seed, subjects)])

    def problems(self, drawn: Collection[str]) -> Iterator[str]:
        """Yield a message for each file that can't be read, or that has prompts of a part in
        `drawn`, the parts that the evaluation draws from templates."""
        for name in self.files:
            try:
                found = self._of_file(name, 0, {})
            except ValueError as error:
                yield f"{KEY}.files.{name}: {error}"
                continue
            twice = next((each.part for each in found if each.part in drawn), None)
            if twice is not None:
                yield (
                    f"{KEY}.files.{name} has prompts of the part {twice!r}, which evaluation.parts "
                    "draws from templates: take it out of evaluation.parts"
                )

    def _of_file(
        self, name: str, seed: int, subjects: Mapping[str, Sequence[str]]
    ) -> list[EvaluationPrompt]:
        path, count = Path(self.files[name]).expanduser(), self.counts.get(name)
        rows = read_prompts(path, self.columns.by_field())
        found = file_prompts(name, rows, count=count, seed=seed, subjects=subjects)
        if count is not None and len(found) < count:
            raise ValueError(
                f"{path} holds {len(found)} different prompts, {KEY}.counts.{name} = {count}"
            )
        return found


def file_prompts(
    name: str,
    rows: Sequence[PromptRow],
    *,
    count: int | None,
    seed: int,
    subjects: Mapping[str, Sequence[str]],
) -> list[EvaluationPrompt]:
    """Return the evaluation prompts of a file: a random subset of `count` (None: all) by `seed`.

    A row's part defaults to `name`, its seed to one derived from its text, and its concept to the
    longest name in `subjects` of its part that the prompt contains. Duplicates are dropped.

    Subsets are nested: a larger `count` adds prompts to those of a smaller one, whose pictures are
    in the cache. Prompts of one part and concept are adjacent, as their pictures are cached in
    shards.
    """
    names = {name_key(each): each for known in subjects.values() for each in known}
    numbered: Counter[str] = Counter()
    found: dict[EvaluationPrompt, int] = {}
    for row in rows:
        place = numbered[row.prompt]
        numbered[row.prompt] += 1
        part = row.part or name
        concept = row.concept or _named_in(row.prompt, subjects.get(part, ()))
        concept = names.setdefault(name_key(concept), concept)
        number = row.seed
        if number is None:
            number = short_seed(seed, "evaluation", "file", row.prompt, place)
        each = EvaluationPrompt(part, concept, row.prompt, number, concept)
        found.setdefault(each, derive(seed, "choice", row.prompt, number))
    drawn = sorted(found, key=lambda each: found[each])[:count]
    first: dict[tuple[str, str], int] = {}
    for place, each in enumerate(drawn):
        first.setdefault((each.part, each.concept), place)
    return sorted(drawn, key=lambda each: first[each.part, each.concept])


def joined(prompts: Sequence[EvaluationPrompt]) -> list[EvaluationPrompt]:
    """Return the prompts of several files without duplicates, grouped by part."""
    parts = list(dict.fromkeys(each.part for each in prompts))
    return sorted(dict.fromkeys(prompts), key=lambda each: parts.index(each.part))


def notes_on(
    prompts: Sequence[EvaluationPrompt], fits: Callable[[Sequence[str]], Sequence[bool]]
) -> list[str]:
    """Return notes on the prompts of each part that have no expected subject, and on those that the
    text encoder truncates: `fits` returns which are not truncated."""
    unnamed = Counter(each.part for each in prompts if each.part in NAMED and not each.expected)
    cut = Counter(
        each.part
        for each, whole in zip(prompts, fits([each.prompt for each in prompts]), strict=True)
        if not whole
    )
    return [
        f"{count} of the prompts of the part {part} name nobody and nothing that the run lists "
        f"there: their accuracy is not measured (name it in the column concept)"
        for part, count in unnamed.items()
    ] + [
        f"{count} of the prompts of the part {part} are longer than the text encoder reads: it "
        "does not see their ends"
        for part, count in cut.items()
    ]


def _named_in(prompt: str, names: Sequence[str]) -> str:
    """Return the longest of `names` that a prompt contains as whole words, case ignored, or ""."""
    found = (
        name
        for name in names
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt, re.IGNORECASE)
    )
    return max(found, key=len, default="")
