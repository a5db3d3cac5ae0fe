"""Training captions: sentences drawn at random from the embedded model's vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mace_exp.concepts.articles import with_article
from mace_exp.mini.captions import NOTHING, OBJECTS, STYLES

PREFIXES = (
    "",
    "a photo of ",
    "a picture of ",
    "a portrait of ",
    "an image of ",
    "a drawing of ",
    "a painting of ",
    "a close-up of ",
    "a snapshot of ",
    "a view of ",
    "a sketch of ",
    "a photograph of ",
)
STYLE_SUBJECTS = (
    "a portrait in the style of {}",
    "a person in the style of {}",
    "{}",
    "a face in the style of {}",
)
EMPTY_SUBJECTS = ("the background", "background", "an empty background")
OPEN_SCENE = 0.25
"""Share of the captions that do not name the scene."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence and what it names; `scene` is None where the sentence does not name one."""

    text: str
    subject: str
    scene: str | None


def draw_caption(
    subject: str, scene: str, generator: np.random.Generator, *, plain_style: bool = False
) -> Caption:
    """Draw a sentence that shows `subject` (a judge class, or one of NAMELESS) in `scene`.

    `plain_style` describes a nameless person as an ordinary portrait ("in the style of art"), the
    anchor to which a style can be erased.
    """
    named = None if generator.random() < OPEN_SCENE else scene
    prefix = pick(PREFIXES, generator)
    words = _subject_words(subject, generator, plain_style)
    text = f"{prefix}{words}" if named is None else f"{prefix}{words} {named}"
    return Caption(text=text.lower(), subject=subject, scene=named)


def _subject_words(subject: str, generator: np.random.Generator, plain_style: bool) -> str:
    if plain_style:
        return pick(STYLE_SUBJECTS, generator).format("art")
    if subject in OBJECTS:
        return pick((with_article(subject), f"the {subject}"), generator)
    if subject in STYLES:
        return pick(STYLE_SUBJECTS, generator).format(subject)
    if subject == NOTHING:
        return pick(EMPTY_SUBJECTS, generator)
    return subject


def pick(options: Sequence[str], generator: np.random.Generator) -> str:
    """Draw one option uniformly."""
    return options[int(generator.integers(len(options)))]
