"""Views: the part of an image that is trained on. One view acts on an image and on its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mace_exp.data.files import Size

CROPS = ("center", "random", "none")


@dataclass(frozen=True, kw_only=True)
class Views:
    """How views are drawn.

    `size` (height, width) is what they are brought to. `crop` "center" takes the largest part of
    that shape in the middle, "random" a part of at least `share` of its sides, anywhere, and
    "none" the whole image, squeezed into the shape. `flip` mirrors every other image, by a coin.
    """

    size: Size
    crop: str = "center"
    share: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop not in CROPS or not 0 < self.share <= 1:
            raise ValueError(
                f"crop is {self.crop!r} with a share of {self.share:g}: {', '.join(CROPS)}, and a "
                "share above 0 and at most 1, are allowed"
            )

    def draw(self, image: Size, seed: int) -> View:
        """Return the view of an image of this size (height, width) that belongs to a seed."""
        # All is drawn whatever is used: switching the flip on leaves the crops as they are.
        share, top, left, coin = np.random.default_rng(seed).random(4)
        share = self.share + (1 - self.share) * share
        if self.crop == "none":
            box = (0, 0, *image)
        elif self.crop == "center":
            box = _box(image, self.size, share=1.0, place=(0.5, 0.5))
        else:
            box = _box(image, self.size, share=share, place=(top, left))
        return View(box, self.size, self.flip and bool(coin < 0.5))


@dataclass(frozen=True)
class View:
    """A box (top, left, height, width) of an image, brought to `size`, mirrored where `flip`."""

    box: tuple[int, int, int, int]
    size: Size
    flip: bool = False

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Return this view of an image [H, W, 3], uint8."""
        return self._of(pixels, Image.Resampling.LANCZOS)

    def mask(self, inside: np.ndarray) -> np.ndarray:
        """Return this view of a mask [H, W], bool: inside is what is mostly inside."""
        return self._of(inside.astype(np.uint8) * 255, Image.Resampling.BOX) > 127

    def _of(self, pixels: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        top, left, height, width = self.box
        part = Image.fromarray(pixels[top : top + height, left : left + width])
        seen = np.asarray(part.resize((self.size[1], self.size[0]), resampling))
        return seen[:, ::-1].copy() if self.flip else seen


def _box(
    image: Size, size: Size, *, share: float, place: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return `share` of the largest box of the shape of `size`; `place` (0 to 1) puts it."""
    scale = min(image[0] / size[0], image[1] / size[1]) * share
    height, width = (max(1, min(round(scale * size[i]), image[i])) for i in (0, 1))
    top, left = round(place[0] * (image[0] - height)), round(place[1] * (image[1] - width))
    return top, left, height, width
