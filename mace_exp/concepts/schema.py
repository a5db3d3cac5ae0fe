"""Configuration of concepts, anchors, the retain set and training prompts."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.concepts.concept import Kind
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE


@dataclass(kw_only=True)
class ConceptsConfig:
    """The concepts to erase."""

    names: list[str]
    kind: Kind
    kinds: dict[str, Kind]  # by name, for concepts of another kind


@dataclass(kw_only=True)
class AnchorsConfig:
    """The phrase that replaces a concept, by kind."""

    person: str
    object: str
    style: str
    explicit: str
    per_concept: dict[str, str]  # by name


@dataclass(kw_only=True)
class KeptConfig:
    """The retain set, by name: used by preservation and evaluation."""

    people: list[str]
    artists: list[str]
    objects: list[str]
    styles: list[str]


@dataclass(kw_only=True)
class PromptsConfig:
    """Training prompts; each subclass is a source of them."""

    count: Annotated[int, WHOLE]  # per concept


@dataclass(kw_only=True)
class TemplatePrompts(PromptsConfig):
    """The built-in templates."""


@dataclass(kw_only=True)
class FilePrompts(PromptsConfig):
    """A user's templates in place of the built-in ones: the first `count` of a file."""

    path: str  # text, one template per line, {} in place of the concept


@dataclass(kw_only=True)
class LlmPrompts(PromptsConfig):
    """Prompts written by a language model, at an OpenAI-compatible endpoint or in a local folder;
    built-in templates fill up where it returns too few."""

    base_url: str | None  # the endpoint, as in https://api.openai.com/v1
    model: str | None  # the model's name at the endpoint
    key_env: str | None  # environment variable with the API key; null: no key is needed
    folder: str | None  # a transformers text-generation model, instead of an endpoint
    seed: Annotated[int, NONNEGATIVE]  # for a local model; for an endpoint, a new seed asks again
    temperature: Annotated[float | None, NONNEGATIVE]  # null: the model's default
    timeout: Annotated[float, POSITIVE]  # seconds per answer
    attempts: Annotated[int, WHOLE]  # maximum number of requests per concept

    def __post_init__(self) -> None:
        if (self.base_url is None) == (self.folder is None):
            raise ValueError(
                f"prompts.base_url = {self.base_url} and prompts.folder = {self.folder}: give one "
                "of them, an OpenAI-compatible endpoint or a folder with a transformers model"
            )
        if (self.base_url is None) != (self.model is None):
            raise ValueError(
                f"prompts.model = {self.model}: it names the model at prompts.base_url = "
                f"{self.base_url}; give both, or prompts.folder alone"
            )
