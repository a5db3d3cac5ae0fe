"""Training prompts from a language model; templates fill gaps."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.llm.answers import Ask, Collected, collect
from mace_exp.concepts.llm.endpoint import endpoint_problems, open_endpoint
from mace_exp.concepts.llm.instructions import instruction
from mace_exp.data.prompts.base import PromptsConfig, Sentences
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from mace_exp.runs.result import result_key
from mace_exp.utils.files import write_json
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE

if TYPE_CHECKING:
    from mace_exp.models.text import PromptEncoder
    from mace_exp.runs.context import Context

log = logging.getLogger(__name__)

VERSION = 1
TOKENS_PER_SENTENCE = 40
"""Upper limit for a local model's answer: twenty words, some of them names."""


@dataclass(kw_only=True)
class LlmPrompts(PromptsConfig):
    """Prompts by a language model, at an OpenAI-compatible endpoint or in a folder; templates fill
    gaps."""

    base_url: str | None  # of the endpoint, for example https://api.openai.com/v1
    model: str | None  # model name at the endpoint
    key_env: str | None  # environment variable with the API key; null: no key
    folder: str | None  # of a transformers text-generation model, instead of an endpoint
    seed: Annotated[int, NONNEGATIVE]  # of a local model; a new one asks an endpoint again
    temperature: Annotated[float | None, NONNEGATIVE]  # null: the model's default
    timeout: Annotated[float, POSITIVE]  # maximum seconds per answer
    attempts: Annotated[int, WHOLE]  # maximum requests per concept

    def __post_init__(self) -> None:
        if (self.base_url is None) == (self.folder is None):
            raise ValueError(
                f"prompts.base_url = {self.base_url} and prompts.folder = {self.folder}: give one "
                "of them, an OpenAI-compatible endpoint or a folder with a transformers model"
            )
        if (self.base_url is None) != (self.model is None):
            raise ValueError(
                f"prompts.model = {self.model}: it names the model at prompts.base_url = "
                f"{self.base_url}; give both, or only prompts.folder"
            )

    def problems(self) -> Iterator[str]:
        if self.base_url is not None:
            yield from endpoint_problems(self.base_url, self.key_env)
        if self.folder is not None:
            try:
                check_auxiliary(self.folder, hub=False)
            except ValueError as error:
                yield f"prompts.folder = {self.folder} {error}"

    def open(self, context: Context) -> Callable[[], Callable[[int], Ask]]:
        """Return a function that loads or connects to the model on the first cache miss."""
        return cache(lambda: self._asker(context.device))

    def sentences(
        self, context: Context, concept: Concept, opened: Callable[[], Callable[[int], Ask]]
    ) -> Sentences:
        encoder = context.model.encoder
        key = self._key(concept, context.model.text_fingerprint)

        def make(missing: Mapping[str, Path]) -> None:
            ask, fits = opened()(self.count), _fits(encoder, concept)
            made = collect(concept, self.count, ask, fits=fits, attempts=self.attempts)
            write_json(missing[key], asdict(made))

        # Any stage that needs prompts makes them, so no stage name is checked.
        path = context.cache.get_all("prompts", {key: key}, make, stage="prompts")[key]
        found = Collected(**json.loads(path.read_text(encoding="utf-8")))
        _warn(concept, found)
        return Sentences(found.sentences, "language model", found.templates)

    def _key(self, concept: Concept, encoder: str) -> str:
        """Return the cache key of the model's prompts for a concept.

        It does not contain the timeout of an endpoint, which does not change answers: a longer one
        sends no request again. The timeout of a local model is included, as it cuts answers.
        """
        without = ("key_env",) if self.base_url is None else ("key_env", "timeout")
        model = {k: v for k, v in asdict(self).items() if k not in without}
        if self.folder is not None:
            model["folder"] = auxiliary_identity(self.folder)
        return result_key(
            "prompts",
            VERSION,
            concept=concept.name,
            kind=concept.kind.name,
            instruction=instruction(concept, self.count),
            model=model,
            encoder=encoder,
        )

    def _asker(self, device: str) -> Callable[[int], Ask]:
        """Return a function that returns the model, set up for a number of sentences."""
        if self.base_url is not None and self.model is not None:
            ask = open_endpoint(
                self.base_url,
                self.model,
                key=os.environ.get(self.key_env) if self.key_env else None,  # stored nowhere else
                timeout=self.timeout,
                temperature=self.temperature,
            )
            return lambda count: ask
        from mace_exp.concepts.llm.local import open_local  # importing it takes a second
        from mace_exp.models.devices import choose_device

        assert self.folder is not None
        local = open_local(
            self.folder,
            device=choose_device(device),
            seed=self.seed,
            timeout=self.timeout,
            temperature=self.temperature,
        )
        return lambda count: partial(local, most_tokens=TOKENS_PER_SENTENCE * count)


def _fits(encoder: PromptEncoder, concept: Concept) -> Callable[[str], bool]:
    """Return whether a sentence fits the context and contains the tokens of the name once."""
    once = int(encoder.positions(concept.name, concept.name).sum())

    def fits(sentence: str) -> bool:
        if not all(encoder.fits([sentence])):
            return False
        try:
            return int(encoder.positions(sentence, concept.name).sum()) == once
        except ValueError:  # adjacent letters change the tokens of the name
            return False

    return fits


def _warn(concept: Concept, found: Collected) -> None:
    if found.templates:
        refused = ", ".join(f"{count} {reason}" for reason, count in found.refused.items())
        log.warning(
            "%d of the %d prompts of %r are templates: the language model wrote too few that can "
            "be used (refused: %s)",
            found.templates,
            len(found.sentences),
            concept.name,
            refused or "nothing",
        )
