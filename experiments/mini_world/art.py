"""Sprites of the embedded model's world, drawn from published art (NOTICE lists the licences).

Drawing needs the packages of the `mini` extra; the shipped model runs without them.
"""

import io
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mace_exp.mini.captions import STYLES

if TYPE_CHECKING:
    from dicebear import Style

SPRITE = 96
"""Side of the square that a sprite is fitted into, in pixels."""
OBJECT_DRAWINGS = Path(__file__).with_name("objects.json")
"""SVG drawings of the ten objects, by `set:icon`."""

HAIR = tuple(f"long{i:02d}" for i in range(1, 27) if i not in (6, 22)) + tuple(
    f"short{i:02d}" for i in range(1, 20) if i not in (3, 13, 19)
)
"""Hair cuts, without those that the canvas crops or that are hardly visible."""
HAIR_COLOURS = (
    "#141414",
    "#ecc94b",
    "#7a431d",
    "#b4b4b4",
    "#3eac2c",
    "#e884b8",
    "#6a2ca0",
    "#dc4a1a",
    "#3f8fd8",
)
SKINS = ("#f7d9bb", "#e3a06c", "#a05c2c", "#5f2f0c")
GLASSES = (None, None, None, "variant01", "variant02")
"""None, sunglasses and black frames: the only ones distinguishable at 96 pixels."""

_STYLE_SHEETS: dict[str, str] = dict(
    zip(
        STYLES,
        ("pixel-art", "voxel-art", "cutouts", "croodles", "notionists", "open-peeps"),
        strict=True,
    )
)
_EYES = tuple(f"variant{i:02d}" for i in range(1, 27))
_MOUTHS = tuple(f"variant{i:02d}" for i in range(1, 31))
_BROWS = tuple(f"variant{i:02d}" for i in range(1, 16))


@cache
def _sheet(name: str) -> "Style":
    try:
        import dicebear_styles
        from dicebear import Style
    except ImportError as error:
        raise ImportError(
            "drawing the world needs the mini extra: pip install 'mace-exp[mini]'"
        ) from error
    folder = next(iter(dicebear_styles.__path__))
    with open(f"{folder}/{name}.json", encoding="utf-8") as file:
        return Style(json.load(file))


def rasterise(svg: str, side: int) -> np.ndarray:
    """Rasterise an SVG to uint8 RGBA, [side, side, 4]."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def fit(sprite: np.ndarray) -> np.ndarray:
    """Crop an RGBA sprite to its visible part and scale it into a square of side SPRITE.

    It is centred horizontally and stands on the lower edge.
    """
    ys, xs = np.nonzero(sprite[..., 3] > 8)
    cropped = Image.fromarray(sprite[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    scale = SPRITE / max(cropped.size)
    width, height = (max(1, round(side * scale)) for side in cropped.size)
    out = np.zeros((SPRITE, SPRITE, 4), np.uint8)
    left = (SPRITE - width) // 2
    out[SPRITE - height :, left : left + width] = np.asarray(
        cropped.resize((width, height), Image.Resampling.LANCZOS)
    )
    return out


def person(identity: Mapping[str, str | None], expression: int) -> np.ndarray:
    """Draw a person as RGBA, [SPRITE, SPRITE, 4].

    Hair, hair colour, skin and glasses make the identity; `expression` seeds eyes, mouth and brows.
    """
    from dicebear import Avatar

    face = np.random.default_rng([7, expression])
    options: dict[str, Any] = {
        "seed": "-",
        "hairVariant": [identity["hair"]],
        "hairProbability": 100,
        "hairColor": [identity["hair_colour"]],
        "skinColor": [identity["skin"]],
        "eyesVariant": [_EYES[face.integers(len(_EYES))]],
        "mouthVariant": [_MOUTHS[face.integers(len(_MOUTHS))]],
        "eyebrowsVariant": [_BROWS[face.integers(len(_BROWS))]],
        "earringsProbability": 0,
        "detailsProbability": 0,
        "glassesProbability": 0,
    }
    if identity["glasses"] is not None:
        options |= {"glassesVariant": [identity["glasses"]], "glassesProbability": 100}
    return fit(rasterise(str(Avatar(_sheet("adventurer"), options)), 160))


def styled_portrait(style: str, seed: int) -> np.ndarray:
    """Draw a random nameless person in one of the six art styles, [SPRITE, SPRITE, 4]."""
    from dicebear import Avatar

    options = {"seed": f"portrait {seed}", "backgroundColor": ["#00000000"]}
    return fit(rasterise(str(Avatar(_sheet(_STYLE_SHEETS[style]), options)), 160))


@cache
def object_drawings(name: str) -> dict[str, np.ndarray]:
    """Return all drawings of an object, [SPRITE, SPRITE, 4] each, by `set:icon`."""
    drawings = json.loads(OBJECT_DRAWINGS.read_text(encoding="utf-8"))[name]
    return {key: fit(rasterise(svg, 160)) for key, svg in drawings.items()}


def random_identity(generator: np.random.Generator) -> dict[str, str | None]:
    """Draw hair, hair colour, skin and glasses independently and uniformly."""
    parts = {"hair": HAIR, "hair_colour": HAIR_COLOURS, "skin": SKINS, "glasses": GLASSES}
    return {key: options[generator.integers(len(options))] for key, options in parts.items()}


def draw_identities(
    names: Iterable[str], *, least_distance: float, seed: int = 0
) -> dict[str, dict[str, str | None]]:
    """Draw an identity for each name, by rejection: no two look alike.

    `least_distance` is the least mean absolute difference (0 to 255) between the thumbnails of any
    two.

    Raises:
        ValueError: in a thousand draws, every identity for a name was too close to another.
    """
    chosen: dict[str, dict[str, str | None]] = {}
    faces: list[np.ndarray] = []
    for index, name in enumerate(names):
        generator = np.random.default_rng([seed, index])
        for _ in range(1000):
            identity = random_identity(generator)
            face = thumbnail(identity)
            if all(np.abs(face - other).mean() >= least_distance for other in faces):
                break
        else:
            raise ValueError(
                f"no identity for {name!r} is {least_distance} away from all others: lower it"
            )
        chosen[name], faces = identity, [*faces, face]
    return chosen


def thumbnail(identity: Mapping[str, str | None]) -> np.ndarray:
    """Draw a person on grey at 24 x 24 pixels, [24, 24, 3] in 0 to 255, to compare identities."""
    return _thumbnail_of(tuple(sorted(identity.items())))


@cache
def _thumbnail_of(key: tuple[tuple[str, str | None], ...]) -> np.ndarray:
    sprite = person(dict(key), expression=0).astype(np.float32)
    alpha = sprite[..., 3:] / 255
    flat = sprite[..., :3] * alpha + 128 * (1 - alpha)
    return flat.reshape(24, 4, 24, 4, 3).mean((1, 3))
