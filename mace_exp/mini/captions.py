"""The vocabulary of the embedded model's captions: which subjects and scenes it can draw.

The judge's classes, the training captions and the evaluation are all built from this one list. No
torch, no drawing: the command line checks names against it before anything heavy is imported.
"""

import json
from functools import cache
from importlib.resources import files

from mace_exp.concepts.prompts import NAMELESS as NAMELESS
from mace_exp.concepts.prompts import SCENES as SCENES

OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STYLES = ("pixel art", "voxel art", "paper cutout", "doodle", "line art", "comic")
NOBODY, NOTHING = "nobody", "nothing"
"""Judge classes of a person without a name, and of a scene without a subject."""


@cache
def identities() -> dict[str, dict[str, str | None]]:
    """Return the drawn attributes (hair, hair colour, skin, glasses) of the 200 people by name."""
    text = files("mace_exp.mini").joinpath("identities.json").read_text(encoding="utf-8")
    return json.loads(text)


@cache
def people() -> tuple[str, ...]:
    """Return the names of the 200 people, in the order of the judge's classes."""
    return tuple(identities())


@cache
def subject_classes() -> tuple[str, ...]:
    """Return the classes of the judge's subject head: people, objects, styles, nobody, nothing."""
    return (*people(), *OBJECTS, *STYLES, NOBODY, NOTHING)
