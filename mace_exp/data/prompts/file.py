"""Training prompts from a file of templates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mace_exp.concepts.articles import filled
from mace_exp.concepts.captions import read_templates
from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt, mentions
from mace_exp.data.prompts.base import PromptsConfig, Sentences

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class FilePrompts(PromptsConfig):
    """The first `count` templates of a file, instead of the built-in ones."""

    concept_keys: ClassVar[tuple[str, ...]] = ("count", "path")

    path: str  # text, one template per line, {} in place of the concept

    def most(self) -> int | None:
        return None  # known when the file is read

    def concept_problems(self, concept: Concept, measured: Sequence[str]) -> Iterator[str]:
        try:
            file_prompts(concept, self, measured=measured)
        except ValueError as error:
            yield f"prompts.path = {self.path}: {error}"

    def sentences(self, context: Context, concept: Concept, opened: Any) -> Sentences:
        texts = file_prompts(concept, self)
        context.model.encoder.token_ids([*texts, *(anchor_prompt(each, concept) for each in texts)])
        return Sentences(texts, "file")


def file_prompts(
    concept: Concept, settings: FilePrompts, *, measured: Collection[str] = ()
) -> list[str]:
    """Return the first `count` templates of the user's file, filled with the concept's name.

    `measured` are the evaluation prompts, which training must not use.

    Raises:
        ValueError: the file can't be read, a line is not a template, there are too few, or one
            gives a prompt that does not name the concept once, or is an evaluation prompt.
    """
    templates = read_templates(Path(settings.path))
    if len(templates) < settings.count:
        raise ValueError(
            f"templates {settings.path} holds {len(templates)}, prompts.count = {settings.count} "
            f"asks for more: add some, or give prompts.count={len(templates)}"
        )
    prompts = {
        line: filled(template, concept.name)
        for line, template in list(templates.items())[: settings.count]
    }
    seen = {each.casefold() for each in measured}
    for line, prompt in prompts.items():
        where = f"templates {settings.path}, line {line}, {prompt!r}"
        if mentions(prompt, concept) != 1:
            raise ValueError(f"{where}: it must name {concept.name!r} once, as a separate word")
        if prompt.casefold() in seen:
            raise ValueError(
                f"{where}: this is an evaluation prompt, which must not be used in training: "
                "rephrase it, or give evaluation=none"
            )
    return list(prompts.values())
