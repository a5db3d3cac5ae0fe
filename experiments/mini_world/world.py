"""The renderer of the embedded model's world: a subject, randomly placed and scaled, on a scene.

A picture is a pure function of (seed, split, index), so that any picture can be drawn again
together with its true mask.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.mini_world.art import (
    SPRITE,
    draw_identities,
    object_drawings,
    person,
    random_identity,
    rasterise,
    styled_portrait,
)
from experiments.mini_world.caption_sampling import Caption, draw_caption
from experiments.mini_world.scenes import scene_svg
from mace_exp.mini import captions

log = logging.getLogger(__name__)

SIDE = 96
"""Side of a picture in pixels."""
LEAST_DISTANCE = 14.0
"""Least difference between the thumbnails of any two people (see `art.draw_identities`)."""
SCALE = (0.66, 0.94)
"""Range of a sprite's side, as a fraction of the picture's."""
_SHARES = {"people": 0.62, "nameless": 0.09, "objects": 0.14, "styles": 0.12, "nothing": 0.03}
_TRAIN_EXPRESSIONS, _TEST_EXPRESSIONS = 24, 4
_TEST_FROM = 1000
_NAMELESS, _PORTRAITS, _BACKGROUNDS = 1200, 160, 96


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture, uint8 [SIDE, SIDE, 3], with its caption and the judge classes of what it shows.

    `mask` [SIDE, SIDE] is the subject's coverage in [0, 1].
    """

    image: np.ndarray
    mask: np.ndarray
    caption: Caption
    subject: int
    scene: int


@dataclass(frozen=True, kw_only=True)
class _Sprites:
    """All n sprites of one split, uint8 RGBA [n, SPRITE, SPRITE, 4].

    `kind` [n] indexes _SHARES, `subject` [n] the judge's classes, `noun` [n] `captions.NAMELESS`.
    """

    pixels: np.ndarray
    kind: np.ndarray
    subject: np.ndarray
    noun: np.ndarray


class World:
    """The renderer of one split.

    "test" differs from "train" in expressions, nameless people, styled portraits, backgrounds and
    placements; the drawings of objects are the same.
    """

    def __init__(self, split: str, cache: Path, *, seed: int = 0) -> None:
        """Load the sprites and backgrounds of a split from `cache`, or draw them.

        Raises:
            ValueError: the split is neither "train" nor "test".
        """
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}: it must be train or test")
        self.split, self.seed = split, seed
        file = cache / f"world_{split}_{seed}.npz"
        if not file.exists():
            _draw_split(split, file, seed)
        data = np.load(file)
        self._sprites = _Sprites(
            **{key: data[key] for key in ("pixels", "kind", "subject", "noun")}
        )
        self._backgrounds = data["backgrounds"]
        self._of_kind = {
            name: np.flatnonzero(self._sprites.kind == i) for i, name in enumerate(_SHARES)
        }

    def draw(self, index: int, *, subject: int | None = None, scene: int | None = None) -> Picture:
        """Draw picture `index`; the subject and scene classes are random where None is given."""
        generator = self._generator(index)
        sprite = self._choose_sprite(generator, subject)
        scene = int(generator.integers(len(captions.SCENES))) if scene is None else scene
        background = self._backgrounds[scene, generator.integers(self._backgrounds.shape[1])]
        if sprite is None:
            image, mask = background, np.zeros((SIDE, SIDE), np.float32)
        else:
            image, mask = compose(self._sprites.pixels[sprite], background, generator)
        words = self._caption(sprite, captions.SCENES[scene], generator)
        return Picture(
            image=image, mask=mask, caption=words, subject=self._label(sprite), scene=scene
        )

    def subject(self, index: int) -> int:
        """Return the subject class of picture `index` without drawing it."""
        sprite = self._choose_sprite(self._generator(index), None)
        return self._label(sprite)

    def batch(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw `count` pictures from index `start` on.

        Returns images, uint8 [count, SIDE, SIDE, 3], subject classes and scene classes, [count].
        """
        pictures = [self.draw(index) for index in range(start, start + count)]
        return (
            np.stack([picture.image for picture in pictures]),
            np.array([picture.subject for picture in pictures]),
            np.array([picture.scene for picture in pictures]),
        )

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.split == "test", index])

    def _label(self, sprite: int | None) -> int:
        nothing = len(captions.subject_classes()) - 1
        return nothing if sprite is None else int(self._sprites.subject[sprite])

    def _choose_sprite(self, generator: np.random.Generator, subject: int | None) -> int | None:
        nothing = len(captions.subject_classes()) - 1
        if subject is None:
            kind = generator.choice(list(_SHARES), p=list(_SHARES.values()))
            pool = self._of_kind[kind]
            if kind in ("objects", "styles"):
                # Uniform over classes, whatever their number of drawings.
                classes = np.unique(self._sprites.subject[pool])
                pool = pool[
                    self._sprites.subject[pool] == classes[generator.integers(len(classes))]
                ]
        else:
            pool = np.flatnonzero(self._sprites.subject == subject)
        if subject == nothing or len(pool) == 0:
            return None
        return int(pool[generator.integers(len(pool))])

    def _caption(self, sprite: int | None, scene: str, generator: np.random.Generator) -> Caption:
        if sprite is None:
            return draw_caption(captions.NOTHING, scene, generator)
        label = captions.subject_classes()[self._sprites.subject[sprite]]
        if label != captions.NOBODY:
            return draw_caption(label, scene, generator)
        noun = (
            captions.NAMELESS[0]
            if generator.random() < 0.5
            else captions.NAMELESS[self._sprites.noun[sprite]]
        )
        return draw_caption(noun, scene, generator, plain_style=generator.random() < 0.15)


def compose(
    sprite: np.ndarray, background: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste an RGBA sprite on a background [SIDE, SIDE, 3] at a random place and scale.

    Returns the image, uint8 [SIDE, SIDE, 3], and the mask, [SIDE, SIDE] in [0, 1].
    """
    side = round(SIDE * generator.uniform(*SCALE))
    scaled = np.asarray(
        Image.fromarray(sprite).resize((side, side), Image.Resampling.LANCZOS), np.float32
    )
    left, top = generator.integers(0, SIDE - side + 1, 2)
    alpha = scaled[..., 3:] / 255
    image = background.astype(np.float32)
    window = image[top : top + side, left : left + side]
    image[top : top + side, left : left + side] = scaled[..., :3] * alpha + window * (1 - alpha)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[top : top + side, left : left + side] = alpha[..., 0]
    return image.round().astype(np.uint8), mask


def _draw_split(split: str, file: Path, seed: int) -> None:
    log.info("drawing the %s sprites of the world", split)
    pixels, kind, subject, noun = [], [], [], []

    def add(sprite: np.ndarray, kind_name: str, label: str, noun_index: int = 0) -> None:
        pixels.append(sprite)
        kind.append(list(_SHARES).index(kind_name))
        subject.append(captions.subject_classes().index(label))
        noun.append(noun_index)

    train = split == "train"
    known = draw_identities(captions.people(), least_distance=LEAST_DISTANCE)
    for name, identity in known.items():
        first, count = (0, _TRAIN_EXPRESSIONS) if train else (_TEST_FROM, _TEST_EXPRESSIONS)
        for expression in range(first, first + count):
            add(person(identity, expression), "people", name)
    for identity, expression in _strangers(known, train):
        add(
            person(identity, expression),
            "nameless",
            captions.NOBODY,
            1 if str(identity["hair"])[0] == "l" else 2,
        )
    for name in captions.OBJECTS:
        for sprite in object_drawings(name).values():
            add(sprite, "objects", name)
    for style in captions.STYLES:
        for index in range(_PORTRAITS) if train else range(10_000, 10_000 + _PORTRAITS // 8):
            add(styled_portrait(style, index), "styles", style)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(
        partial,
        pixels=np.stack(pixels),
        kind=np.array(kind),
        subject=np.array(subject),
        noun=np.array(noun),
        backgrounds=_backgrounds(train, seed),
    )
    partial.rename(file)


def _strangers(
    known: dict[str, dict[str, str | None]], train: bool
) -> list[tuple[dict[str, str | None], int]]:
    taken = {
        tuple(sorted((k, str(v)) for k, v in identity.items() if k != "glasses"))
        for identity in known.values()
    }
    generator = np.random.default_rng([11, train])
    out: list[tuple[dict[str, str | None], int]] = []
    while len(out) < (_NAMELESS if train else _NAMELESS // 8):
        identity = random_identity(generator)
        if tuple(sorted((k, str(v)) for k, v in identity.items() if k != "glasses")) not in taken:
            # Expressions of the named people: an expression must not reveal who has no name.
            first, count = (0, _TRAIN_EXPRESSIONS) if train else (_TEST_FROM, _TEST_EXPRESSIONS)
            out.append((identity, first + int(generator.integers(count))))
    return out


def _backgrounds(train: bool, seed: int) -> np.ndarray:
    generator = np.random.default_rng([13, seed, train])
    count = _BACKGROUNDS if train else _BACKGROUNDS // 4
    return np.stack(
        [
            np.stack(
                [rasterise(scene_svg(scene, generator), SPRITE)[..., :3] for _ in range(count)]
            )
            for scene in captions.SCENES
        ]
    )
