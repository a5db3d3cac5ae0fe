"""What is erased, what takes its place, what must survive, and the sentences that name them."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.concepts.concept import Kind
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE


@dataclass(kw_only=True)
class ConceptsConfig:
    """What is erased."""

    names: list[str]
    kind: Kind
    kinds: dict[str, Kind]  # by name, where a concept is of another kind


@dataclass(kw_only=True)
class AnchorsConfig:
    """What takes a concept's place, by kind."""

    person: str
    object: str
    style: str
    explicit: str
    per_concept: dict[str, str]  # by name


@dataclass(kw_only=True)
class KeptConfig:
    """What must survive, by name: preservation and evaluation read it."""

    people: list[str]
    artists: list[str]
    objects: list[str]
    styles: list[str]


@dataclass(kw_only=True)
class PromptsConfig:
    """Training prompts; a subclass says where they come from."""

    count: Annotated[int, WHOLE]  # a concept


@dataclass(kw_only=True)
class TemplatePrompts(PromptsConfig):
    """The project's own templates."""


@dataclass(kw_only=True)
class FilePrompts(PromptsConfig):
    """Templates of the user's own, in place of the project's: the first so many of a file."""

    path: str  # text, a template a line, {} where the concept goes


@dataclass(kw_only=True)
class LlmPrompts(PromptsConfig):
    """Sentences of a language model, at an OpenAI-compatible endpoint or in a folder; templates
    where it falls short."""

    base_url: str | None  # of the endpoint, as in https://api.openai.com/v1
    model: str | None  # its name there
    key_env: str | None  # the environment variable that holds the key; null: none is wanted
    folder: str | None  # of a transformers text-generation model, in place of an endpoint
    seed: Annotated[int, NONNEGATIVE]  # of a model in a folder; another one asks an endpoint anew
    temperature: Annotated[float | None, NONNEGATIVE]  # null: the model's own
    timeout: Annotated[float, POSITIVE]  # seconds an answer may take
    attempts: Annotated[int, WHOLE]  # how often it is asked for one concept, at most

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
