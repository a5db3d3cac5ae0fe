"""`attack=paraphrase` and `attack=paraphrase_llm`: other sentences than those of the evaluation."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.attacks.base import ActiveAttack, Perform
from mace_exp.concepts.captions import read_templates
from mace_exp.concepts.concept import Concept
from mace_exp.data.prompts.llm import LlmPrompts
from mace_exp.utils.errors import naming_setting

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class SentenceAttack(ActiveAttack):
    """Asks the model for the concept in other words."""

    unit = ""

    def build(self) -> Perform:
        from mace_exp.attacks.drawing import draw_once

        return draw_once


@dataclass(kw_only=True)
class ParaphraseAttack(SentenceAttack):
    """Sentences of a file: templates with {} for the name, one per line, or (`.csv`) rows of a
    concept and a prompt, which need not name it."""

    name = "paraphrase"

    file: str

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        for concept in self.attacked(concepts):
            try:
                self._read(concept)
            except ValueError as error:
                yield f"attack.file = {self.file}: {error}"
                return

    def sentences(self, concept: Concept, context: Context) -> list[str]:
        return self._read(concept)

    def _read(self, concept: Concept) -> list[str]:
        """Return as many sentences as pictures are drawn, in turn.

        Raises:
            ValueError: the file can't be read, or has none for the concept.
        """
        path = Path(self.file)
        if path.suffix.lower() == ".csv":
            found = _rows(path, concept)
        else:
            found = [each.format(concept.name) for each in read_templates(path).values()]
        return [found[index % len(found)] for index in range(self.images)]


@dataclass(kw_only=True)
class LlmParaphraseAttack(SentenceAttack):
    """Sentences that name the concept, by a language model, as `prompts=llm` asks it for them."""

    name = "paraphrase_llm"

    llm: LlmPrompts

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        for problem in self.llm.problems():
            yield problem.replace("prompts.", "attack.llm.", 1)

    def sentences(self, concept: Concept, context: Context) -> list[str]:
        with naming_setting("attack.llm"):
            found = self.llm.sentences(context, concept, self.llm.open(context)).texts
        return [found[index % len(found)] for index in range(self.images)]


def _rows(path: Path, concept: Concept) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        named = [(row["concept"].strip(), " ".join(row["prompt"].split())) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it can't be read as UTF-8 text: {error}") from error
    except (KeyError, AttributeError) as error:
        raise ValueError("it needs the columns concept, prompt in every row") from error
    own = concept.name.casefold()
    found = [prompt for name, prompt in named if name.casefold() == own and prompt]
    if not found:
        raise ValueError(f"it has no prompt of {concept.name!r}: give at least one row")
    return found
