"""One model: the loaded pipeline, behind an interface that is the same for all families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mace_exp.models.fingerprints import fingerprint, text_fingerprint
from mace_exp.models.latents import native_size
from mace_exp.models.projections import projection_weights
from mace_exp.models.sampling import has_safety_checker
from mace_exp.models.text import PromptEncoder, stable_diffusion_encoder


@dataclass(frozen=True, eq=False)
class Model:
    """A Stable Diffusion pipeline (1.x, 2.x or SDXL), before any edit.

    `dtype` is the name of its compute dtype, such as "float32".
    """

    pipeline: Any
    dtype: str = "float32"

    @cached_property
    def encoder(self) -> PromptEncoder:
        """The text encoder: prompts to cross-attention states."""
        return stable_diffusion_encoder(self.pipeline)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the model in every key."""
        return fingerprint(self.pipeline)

    @cached_property
    def text_fingerprint(self) -> str:
        """Identifies the text encoder, in keys of results that depend only on prompts."""
        return text_fingerprint(self.pipeline)

    @cached_property
    def projections(self) -> dict[str, Tensor]:
        """The key and value projections of all cross-attention layers, by parameter name."""
        return projection_weights(self.pipeline.unet)

    @property
    def precision(self) -> dict[str, str]:
        """The compute dtype, unless it is float32; part of keys.

        Fingerprints hash weights rounded to float16, whatever the compute dtype is.
        """
        return {} if self.dtype == "float32" else {"dtype": self.dtype}

    @property
    def computed_by(self) -> Mapping[str, str]:
        """Fingerprint and compute dtype; part of the keys of the model's outputs."""
        return {"model": self.fingerprint} | self.precision

    def drawn_by(self, *, checked: bool = True) -> dict[str, str]:
        """Return what determines the images that the model draws; part of their key.

        `checked` is whether the safety checker, if there is one, may blacken them.
        """
        blackens = checked and self.has_safety_checker
        return dict(self.computed_by) | ({"safety_checker": "kept"} if blackens else {})

    @property
    def has_safety_checker(self) -> bool:
        """Whether the model has a safety checker, which may blacken images."""
        return has_safety_checker(self.pipeline)

    @property
    def native_size(self) -> tuple[int, int]:
        """Default height and width of generated images, in pixels."""
        return native_size(self.pipeline)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of such images."""
        height, width = (side // self.pipeline.vae_scale_factor for side in self.native_size)
        return self.pipeline.unet.config.in_channels, height, width
