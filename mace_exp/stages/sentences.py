"""The sentences that a run trains on: our own templates, the user's, or a language model's.

They have no stage of their own: the first that needs one makes all, and every stage reads the same.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.llm.answers import Ask, Collected, collect
from mace_exp.concepts.llm.endpoint import key_of_endpoint, open_endpoint
from mace_exp.concepts.llm.instructions import instruction
from mace_exp.concepts.prompt_files import own_prompts
from mace_exp.concepts.prompts import anchor_prompt, training_prompts
from mace_exp.concepts.schema import FilePrompts, LlmPrompts
from mace_exp.models.auxiliary import auxiliary_identity
from mace_exp.models.devices import choose_device
from mace_exp.models.text import PromptEncoder
from mace_exp.utils.files import atomic_file, write_json
from mace_exp.utils.progress import progress

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)

TOKENS_A_SENTENCE = 40
"""Of a local model's answer, at most: twenty words, some of them names."""


def sentences(work: Run) -> dict[str, list[str]]:
    """Return the training sentences of every concept, by slug, and write them to the run folder."""
    settings = work.config.prompts
    if isinstance(settings, LlmPrompts):
        said = _written_by_a_model(work, settings)
    elif isinstance(settings, FilePrompts):
        said = {each.slug: _from_a_file(work, each) for each in work.concepts}
    else:
        counts = {each.slug: work.settings[each.slug].prompts.count for each in work.concepts}
        ours = ((each.slug, training_prompts(each, counts[each.slug])) for each in work.concepts)
        said = {slug: Collected(texts, len(texts), {}) for slug, texts in ours}
    if work.ranks.number == 0:
        _write(work, said)
    return {slug: each.sentences for slug, each in said.items()}


def _from_a_file(work: Run, concept: Concept) -> Collected:
    """Return the user's sentences; one that is too long is refused before anything is drawn."""
    settings = work.settings[concept.slug].prompts
    assert isinstance(settings, FilePrompts)
    texts = own_prompts(concept, settings)
    work.encoder.token_ids([*texts, *(anchor_prompt(text, concept) for text in texts)])
    return Collected(texts, 0, {})


def _written_by_a_model(work: Run, settings: LlmPrompts) -> dict[str, Collected]:
    """Ask for what the cache does not hold; the model is loaded or reached only for that."""
    said, opened = {}, cache(lambda: _open(work, settings))
    with progress("prompts", len(work.concepts), "concept") as advance:
        for concept in work.concepts:
            own = work.settings[concept.slug].prompts
            assert isinstance(own, LlmPrompts)

            def make(path: Path, concept: Concept = concept, count: int = own.count) -> None:
                ask, fits = opened()(count), _fits(work.encoder, concept)
                made = collect(concept, count, ask, fits=fits, attempts=settings.attempts)
                write_json(path, asdict(made))

            path = work.cache.get("prompts", _inputs(work, own, concept), make)
            said[concept.slug] = Collected(**json.loads(path.read_text(encoding="utf-8")))
            advance(1)
    for concept in work.concepts:
        _warn(concept, said[concept.slug])
    work.prompt_fallbacks = sum(each.templates for each in said.values())
    return said


def _inputs(work: Run, settings: LlmPrompts, concept: Concept) -> dict[str, Any]:
    """All that decides what a model writes of a concept, and what of it is taken.

    How long is waited for an endpoint decides whether it answers, not what: more patience does not
    ask, and pay for, anything again. A model in a folder stops writing then.
    """
    without = ("key_env",) if settings.base_url is None else ("key_env", "timeout")
    model = {k: v for k, v in asdict(settings).items() if k not in without}
    if settings.folder is not None:
        model["folder"] = auxiliary_identity(settings.folder)
    return {
        "concept": concept.name,
        "kind": concept.kind.name,
        "instruction": instruction(concept, settings.count),
        "model": model,
        "encoder": work.text_fingerprint,
    }


def _open(work: Run, settings: LlmPrompts) -> Callable[[int], Ask]:
    """Return what gives the model, ready to be asked for so many sentences."""
    if settings.base_url is not None and settings.model is not None:
        ask = open_endpoint(
            settings.base_url,
            settings.model,
            key=key_of_endpoint(settings.key_env),
            timeout=settings.timeout,
            temperature=settings.temperature,
        )
        return lambda count: ask
    from mace_exp.concepts.llm.local import (
        open_local,  # transformers' text generation takes a second
    )

    assert settings.folder is not None
    local = open_local(
        settings.folder,
        device=choose_device(work.config.device.name),
        seed=settings.seed,
        timeout=settings.timeout,
        temperature=settings.temperature,
    )
    return lambda count: partial(local, most_tokens=TOKENS_A_SENTENCE * count)


def _fits(encoder: PromptEncoder, concept: Concept) -> Callable[[str], bool]:
    """Return whether a sentence is read whole and its tokens hold those of the name once."""
    once = int(encoder.positions(concept.name, concept.name).sum())

    def fits(sentence: str) -> bool:
        if not all(encoder.fits([sentence])):
            return False
        try:
            return int(encoder.positions(sentence, concept.name).sum()) == once
        except ValueError:  # letters that make other tokens beside the name
            return False

    return fits


def _warn(concept: Concept, said: Collected) -> None:
    if said.templates:
        refused = ", ".join(f"{count} {reason}" for reason, count in said.refused.items())
        log.warning(
            "%d of the %d prompts of %r are templates: the language model wrote too few that can "
            "be used (refused: %s)",
            said.templates,
            len(said.sentences),
            concept.name,
            refused or "nothing",
        )


def _write(work: Run, said: dict[str, Collected]) -> None:
    """Write prompts.csv: every sentence with its concept and where it comes from."""
    theirs = "file" if isinstance(work.config.prompts, FilePrompts) else "language model"
    with (
        atomic_file(work.folder.prompts) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("concept", "index", "prompt", "source"))
        for concept in work.concepts:
            each = said[concept.slug]
            own = len(each.sentences) - each.templates
            for index, sentence in enumerate(each.sentences):
                source = theirs if index < own else "template"
                writer.writerow((concept.name, index, sentence, source))
