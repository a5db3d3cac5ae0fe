"""Views: the crop of an image used in training, applied alike to the image and to its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mace_exp.data.files import Size


@dataclass(frozen=True, kw_only=True)
class Views:
    """The distribution of views.

    `size` (height, width) is the size of a view, to which the crop is resized. `crop` "center" is
    the largest centred box of that aspect ratio, "random" a box whose sides are at least `share`
    times as long, anywhere, and "none" the whole image, without keeping its aspect ratio. `flip`
    mirrors an image with probability 1/2.
    """

    size: Size
    crop: str = "center"
    share: float = 1.0
    flip: bool = False

    def draw(self, image: Size, seed: int) -> View:
        """Return the view of an image of size (height, width) that is determined by a seed."""
        # All numbers are drawn even if unused, so that switching the flip on keeps the crops.
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
    """A box (top, left, height, width) of an image, resized to `size`, mirrored if `flip`."""

    box: tuple[int, int, int, int]
    size: Size
    flip: bool = False

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Return this view of an image [H, W, 3], uint8."""
        return self._apply(pixels, Image.Resampling.LANCZOS)

    def mask(self, inside: np.ndarray) -> np.ndarray:
        """Return this view of a mask [H, W], bool: pixels that are mostly inside are inside."""
        return self._apply(inside.astype(np.uint8) * 255, Image.Resampling.BOX) > 127

    def _apply(self, pixels: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        top, left, height, width = self.box
        part = Image.fromarray(pixels[top : top + height, left : left + width])
        resized = np.asarray(part.resize((self.size[1], self.size[0]), resampling))
        return resized[:, ::-1].copy() if self.flip else resized


def _box(
    image: Size, size: Size, *, share: float, place: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return a box (top, left, height, width) of the aspect ratio of `size`: the largest scaled by
    `share`, at the relative position `place` (from 0, top left, to 1)."""
    scale = min(image[0] / size[0], image[1] / size[1]) * share
    height, width = (max(1, min(round(scale * size[i]), image[i])) for i in (0, 1))
    top, left = round(place[0] * (image[0] - height)), round(place[1] * (image[1] - width))
    return top, left, height, width
