"""Training prompts from a user's template file.

The command line's checks and the stage that reads the prompts call the same function. No heavy
import.
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
    """Return the first `count` templates of the user's file, filled with the concept's name.

    `measured` are the evaluation prompts, which training must not use.

    Raises:
        ValueError: the file can't be read, a line is not a template, there are too few templates,
            or a prompt does not name the concept exactly once or is an evaluation prompt.
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
            raise ValueError(f"{where}: it must name {concept.name!r} once, as a separate word")
        if prompt.casefold() in seen:
            raise ValueError(
                f"{where}: this is an evaluation prompt, which must not be used in training: "
                "rephrase it, or give evaluation=none"
            )
    return list(prompts.values())


def template_problems(
    concept: Concept, prompts: PromptsConfig, evaluation: EvaluationConfig
) -> Iterator[str]:
    """Yield a message where the user's templates do not fit a concept."""
    if not isinstance(prompts, FilePrompts):
        return
    template_count = evaluation.templates if isinstance(evaluation, SampledEvaluation) else 0
    try:
        measured = evaluation_prompts(concept.name, concept.kind, template_count)
        own_prompts(concept, prompts, measured=measured)
    except ValueError as error:
        yield f"prompts.path = {prompts.path}: {error}"
