"""The training data of the method as a torch dataset: images, masks, prompts, positions of the
concept's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mace_exp.models.latents import signed
from mace_exp.models.text import UNLIMITED, phrase_mask, token_ids


@dataclass(frozen=True)
class Instances:
    """n images of one concept.

    `images` [n, H, W, 3], uint8; `masks` [n, H, W], bool or in [0, 1], the region of the
    concept, or None for the whole image.
    """

    concept: str
    prompts: Sequence[str]
    images: np.ndarray
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images(self.concept, self.prompts, self.images)
        if self.masks is not None and tuple(self.masks.shape) != self.images.shape[:3]:
            raise ValueError(
                f"{self.concept}: masks {list(self.masks.shape)} do not fit images "
                f"{list(self.images.shape[:3])}"
            )


@dataclass(frozen=True)
class ClassImages:
    """Class images [m, H, W, 3], uint8, for prior preservation, and their prompts."""

    prompts: Sequence[str]
    images: np.ndarray

    def __post_init__(self) -> None:
        _check_images("class images", self.prompts, self.images)


class Item(TypedDict):
    """One image of a concept, with one class image if there are any.

    `instance_images`, `preserve_images` [3, H, W] in [-1, 1]; `instance_masks` [H, W] in [0, 1],
    float32, or None; `instance_prompt_ids`, `preserve_prompt_ids` [L], int64; `concept_positions`
    [L], bool.
    """

    instance_prompt: str
    instance_images: Tensor
    instance_masks: Tensor | None
    instance_prompt_ids: Tensor
    concept_positions: Tensor
    preserve_images: NotRequired[Tensor]
    preserve_prompt_ids: NotRequired[Tensor]


class MACEDataset(Dataset[Item]):
    """Images of concepts with the positions of their tokens.

    Everything is checked on construction: reading an item never fails. `instance_prompts`,
    `instance_prompt_ids` [n, L], `concept_positions` [n, L] and `preserve_prompt_ids` [m, L] hold
    the values of all items.
    """

    def __init__(
        self,
        tokenizer: Any,
        instances: Sequence[Instances],
        *,
        preserved: ClassImages | None = None,
        end_of_text: bool = False,
        context_length: int | None = None,
    ) -> None:
        """Accept any CLIP tokenizer; `end_of_text` adds end-of-text and padding to the positions.

        L is `context_length`, or the tokenizer's limit.

        Raises:
            ValueError: no instances; a prompt that does not name its concept or is too long (the
                message shows it and its tokens); a tokenizer without a limit.
        """
        if not instances:
            raise ValueError("instances is empty: images of at least one concept are needed")
        length = _length(tokenizer, context_length)
        self._rows = [(each, row) for each in instances for row in range(len(each.prompts))]
        self._preserved = preserved
        self.instance_prompts = [each.prompts[row] for each, row in self._rows]
        self.instance_prompt_ids = token_ids(tokenizer, self.instance_prompts, length)
        self.concept_positions = torch.stack(
            [
                phrase_mask(
                    tokenizer, each.prompts[row], each.concept, length, include_end=end_of_text
                )
                for each, row in self._rows
            ]
        )
        prompts = [] if preserved is None else preserved.prompts
        self.preserve_prompt_ids = token_ids(tokenizer, prompts, length)

    def __len__(self) -> int:
        """Return the larger number of instance or class images; the smaller set repeats."""
        return max(len(self._rows), len(self.preserve_prompt_ids))

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        position = index % len(self._rows)
        own, row = self._rows[position]
        item = Item(
            instance_prompt=own.prompts[row],
            instance_images=signed(own.images[row]),
            instance_masks=None if own.masks is None else own.masks[row].float(),
            instance_prompt_ids=self.instance_prompt_ids[position],
            concept_positions=self.concept_positions[position],
        )
        if self._preserved is not None:
            other = index % len(self._preserved.prompts)
            item["preserve_images"] = signed(self._preserved.images[other])
            item["preserve_prompt_ids"] = self.preserve_prompt_ids[other]
        return item


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Make a batch of items, for a DataLoader: tensors stacked, prompts in a list.

    Masks are None if no item has one; otherwise an item without a mask gets an all-ones mask.
    """
    batch: dict[str, Any] = {"instance_prompt": [item["instance_prompt"] for item in items]}
    masks = [item["instance_masks"] for item in items]
    size = items[0]["instance_images"].shape[-2:]
    whole = all(mask is None for mask in masks)
    batch["instance_masks"] = (
        None
        if whole
        else torch.stack([torch.ones(size) if mask is None else mask for mask in masks])
    )
    for key in items[0].keys() - {"instance_prompt", "instance_masks"}:
        batch[key] = torch.stack([item[key] for item in items])
    return batch


def _check_images(name: str, prompts: Sequence[str], images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{name}: images are {images.dtype} {list(images.shape)}, uint8 [n, H, W, 3] is needed"
        )
    if not len(images) or len(images) != len(prompts):
        raise ValueError(f"{name}: {len(images)} images and {len(prompts)} prompts: one each")


def _length(tokenizer: Any, context_length: int | None) -> int:
    length = context_length or tokenizer.model_max_length
    if length > UNLIMITED:
        raise ValueError("the tokenizer has no length limit: give context_length=77, as for CLIP")
    return length
