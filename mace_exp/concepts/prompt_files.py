"""Sentences out of templates of the user's own: checked before anything heavy is imported.

The command line refuses what can't be trained on, and the stages read the rest, through the same
function.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mace_exp.concepts.captions import read_templates
from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import evaluation_prompts, mentions
from mace_exp.concepts.schema import FilePrompts, PromptsConfig
from mace_exp.evaluation.schema import EvaluationConfig, SampledEvaluation


def own_prompts(
    concept: Concept, settings: FilePrompts, *, measured: Collection[str] = ()
) -> list[str]:
    """Return the concept in the first `count` templates of the user's file.

    `measured` are sentences that training must not see.

    Raises:
        ValueError: the file can't be read, a line is no template, there are too few, or one makes
            a sentence that does not name the concept once, or that is measured with.
    """
    templates = read_templates(Path(settings.path))
    if len(templates) < settings.count:
        raise ValueError(
            f"templates {settings.path} holds {len(templates)}, prompts.count = {settings.count} "
            f"asks for more: add some, or give prompts.count={len(templates)}"
        )
    prompts = {
        line: template.format(concept.name)
        for line, template in list(templates.items())[: settings.count]
    }
    seen = {each.casefold() for each in measured}
    for line, prompt in prompts.items():
        where = f"templates {settings.path}, line {line}, {prompt!r}"
        if mentions(prompt, concept) != 1:
            raise ValueError(f"{where}: it must name {concept.name!r} once, as a word of its own")
        if prompt.casefold() in seen:
            raise ValueError(
                f"{where}: the evaluation measures with this very sentence, which training must "
                "not see: put it in other words, or give evaluation=none"
            )
    return list(prompts.values())


def template_problems(
    concept: Concept, prompts: PromptsConfig, evaluation: EvaluationConfig
) -> Iterator[str]:
    """Yield a message about the user's templates for a concept, where there is one."""
    if not isinstance(prompts, FilePrompts):
        return
    most = evaluation.templates if isinstance(evaluation, SampledEvaluation) else 0
    try:
        measured = evaluation_prompts(concept.name, concept.kind, most)
        own_prompts(concept, prompts, measured=measured)
    except ValueError as error:
        yield f"prompts.path = {prompts.path}: {error}"
