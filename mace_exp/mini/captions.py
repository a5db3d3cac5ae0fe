"""What the embedded model's world can show, and the sentences that say it.

The vocabulary is fixed here once: the renderer, the judge, the training captions and the
evaluation read it. No torch, no drawing: the command line checks names against it before anything
heavy is imported.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from mace_exp.concepts.prompts import NAMELESS as NAMELESS
from mace_exp.concepts.prompts import SCENES as SCENES
from mace_exp.concepts.prompts import with_article as with_article

OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STYLES = ("pixel art", "voxel art", "paper cutout", "doodle", "line art", "comic")
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
NOBODY, NOTHING = "nobody", "nothing"
"""Judge classes of a person without a name, and of a scene without a subject."""


@cache
def people() -> tuple[str, ...]:
    """Names of the 200 people of the world, in the order of the judge's classes."""
    text = files("mace_exp.mini").joinpath("identities.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


@cache
def subject_classes() -> tuple[str, ...]:
    """Classes of the judge's subject head: people, objects, styles, then nobody and nothing."""
    return (*people(), *OBJECTS, *STYLES, NOBODY, NOTHING)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence and what it names; `scene` is None where the sentence leaves it open."""

    text: str
    subject: str
    scene: str | None


def caption(
    subject: str, scene: str, generator: np.random.Generator, *, plain_style: bool = False
) -> Caption:
    """Say in one of many ways that `subject` (a judge class, or one of NAMELESS) is in `scene`.

    A quarter of the sentences leaves the scene open. `plain_style` says a nameless person as an
    ordinary portrait ("in the style of art"), the anchor to which a style can be erased.
    """
    named = None if generator.random() < 0.25 else scene
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
        return pick(("the background", "background", "an empty background"), generator)
    return subject


def pick(options: Sequence[str], generator: np.random.Generator) -> str:
    """Take one option, each as likely as any other."""
    return options[int(generator.integers(len(options)))]
