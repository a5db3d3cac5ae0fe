"""Training sentences of every concept, made by the first stage that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.data.images.base import ConceptImages
from mace_exp.data.prompts.base import PromptsConfig, Sentences
from mace_exp.models.text import PromptEncoder
from mace_exp.runs.context import Context
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import write_table
from mace_exp.utils.progress import progress, silenced


@dataclass(frozen=True)
class Prompts:
    """Training sentences by concept slug, and how many of them are templates that replace missing
    ones of a language model."""

    sentences: Mapping[str, list[str]]
    fallbacks: int = 0


def training_prompts(
    context: Context,
    settings: PromptsConfig,
    per_concept: Mapping[str, PromptsConfig],
    concepts: Sequence[Concept],
) -> Prompts:
    """Return the training sentences of every concept, and write them to the run folder.

    `settings` are the run's, `per_concept` those of each concept, by slug.
    """
    opened = settings.open(context)
    quiet = silenced() if opened is None else nullcontext()
    with quiet, progress("prompts", len(concepts), "concept") as advance:
        found: dict[str, Sentences] = {}
        for concept in concepts:
            found[concept.slug] = per_concept[concept.slug].sentences(context, concept, opened)
            advance(1)
    if context.ranks.number == 0:
        _write(context, concepts, found)
    return Prompts(
        {slug: each.texts for slug, each in found.items()},
        sum(each.templates for each in found.values()),
    )


def check_prompts(
    encoder: PromptEncoder,
    concepts: Sequence[Concept],
    sentences: Mapping[str, Sequence[str]],
    sources: Mapping[str, ConceptImages],
) -> None:
    """Refuse prompts that do not name their concept, or are too long with it or its anchor.

    `sentences` are the training sentences and `sources` those of the training images, by concept
    slug; a concept may have no images.

    Raises:
        ValueError: it names the prompt, and the concept where its anchor is too long.
    """
    for concept in concepts:
        source = sources.get(concept.slug)
        prompts = [] if source is None else source.prompts
        for prompt in dict.fromkeys(prompts):
            encoder.positions(prompt, concept.name)
        read = dict.fromkeys([*prompts, *sentences[concept.slug]])
        with naming_setting(f"{concept.name} with its anchor {concept.anchor!r}"):
            encoder.token_ids([anchor_prompt(each, concept) for each in read])


def _write(context: Context, concepts: Sequence[Concept], found: Mapping[str, Sentences]) -> None:
    """Write prompts.csv: every sentence with its concept and its source."""
    rows = [
        (concept.name, index, text, _source(found[concept.slug], index))
        for concept in concepts
        for index, text in enumerate(found[concept.slug].texts)
    ]
    write_table(context.folder.prompts, ("concept", "index", "prompt", "source"), rows)


def _source(sentences: Sentences, index: int) -> str:
    is_template = index >= len(sentences.texts) - sentences.templates
    return "template" if is_template else sentences.source
