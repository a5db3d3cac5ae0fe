"""`attack=paraphrase` and `attack=paraphrase_llm`: prompts other than the evaluation's
templates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.attacks.base import ActiveAttack, Perform
from mace_exp.concepts.captions import read_templates
from mace_exp.concepts.concept import Concept
from mace_exp.concepts.spelling import name_key
from mace_exp.data.prompts.llm import LlmPrompts
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.tables import is_table, read_table
from mace_exp.utils.texts import plain_text

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class SentenceAttack(ActiveAttack):
    """Prompts the model for the concept with other sentences."""

    unit = ""

    def build(self) -> Perform:
        from mace_exp.attacks.drawing import draw_once

        return draw_once


@dataclass(kw_only=True)
class ParaphraseAttack(SentenceAttack):
    """Sentences of a file: templates with {} for the name, one per line, or a table's rows of a
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
        """Return one sentence per picture, cycling through the file's.

        Raises:
            ValueError: the file can't be read, or has none for the concept.
        """
        path = Path(self.file)
        if is_table(path):
            found = _rows(path, concept)
        else:
            found = [each.format(concept.name) for each in read_templates(path).values()]
        return [found[index % len(found)] for index in range(self.images)]


@dataclass(kw_only=True)
class LlmParaphraseAttack(SentenceAttack):
    """Sentences that name the concept, from a language model as with `prompts=llm`."""

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
    table = read_table(path)
    name, prompt = table.column(["concept"]), table.column(["prompt"])
    if name is None or prompt is None:
        raise ValueError("it needs the columns concept, prompt")
    own = name_key(concept.name)
    rows = [row for row in table.rows if name_key(row.get(name, "")) == own]
    found = [text for row in rows if (text := plain_text(row.get(prompt, "")))]
    if not found:
        raise ValueError(f"it has no prompt of {concept.name!r}: give at least one row")
    return found
