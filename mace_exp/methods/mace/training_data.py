"""Training data of LoRAs: the datasets of the concepts, encoded once by the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.probes import probe_of
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.snapshots import MAX_WATCHED
from mace_exp.methods.mace.training import ConceptData, JointData, PriorImages, TrainingData
from mace_exp.models.denoiser import added_conditions, select_rows
from mace_exp.models.model import Model
from mace_exp.models.text import PromptEncoder


@dataclass(frozen=True, kw_only=True)
class MACEDataset:
    """The training data of one concept: n images with their prompts, the masks that show the
    concept, and the tokens of each prompt that name it.

    `masks` [n, H, W], bool or in [0, 1], or None for the whole image. With `end_of_text`, the
    end-of-text token and the padding count as its tokens. Contains plain values, so that it can be
    sent to other ranks, which encode it.

    Raises ValueError where masks do not fit the images.
    """

    concept: Concept
    images: TrainingImages
    masks: Tensor | None
    end_of_text: bool

    def __post_init__(self) -> None:
        shapes = [
            list(part.shape[:3]) for part in (self.masks, self.images.images) if part is not None
        ]
        if shapes[0] != shapes[-1]:
            raise ValueError(
                f"{self.concept.name}: masks {shapes[0]} do not fit images {shapes[-1]}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def positions(self, encoder: PromptEncoder) -> Tensor:
        """Return [n, L], bool: the tokens of every occurrence of the concept's name in each prompt.

        Raises:
            ValueError: a prompt that does not name the concept or is longer than L tokens.
        """
        name, end = self.concept.name, self.end_of_text
        rows = [encoder.positions(each, name, include_end=end) for each in self.images.prompts]
        return torch.stack(rows)

    def encoded(
        self, model: Model, prior: PriorImages | None, *, seed: int, watched: bool
    ) -> ConceptData:
        """Return the encoded data; `watched` adds a probe that records the concept's attention.

        Raises ValueError as `positions` does.
        """
        prompts, latents = self.images.prompts, self.images.latents
        return ConceptData(
            slug=self.concept.slug,
            latents=latents,
            states=model.encoder.encode(prompts),
            positions=self.positions(model.encoder),
            masks=self.masks,
            prior=prior,
            probe=probe_of(model, self.concept, self.images, seed=seed) if watched else None,
            added=added_conditions(model.pipeline, prompts, latents),
        )


def training_data(
    model: Model,
    slug: str,
    parts: Sequence[MACEDataset],
    prior: PriorImages | None,
    *,
    seed: int,
    watched: bool,
    joint: bool,
) -> TrainingData:
    """Return the data of one LoRA, of one concept or (`joint`) of several."""
    encoded = [
        part.encoded(model, prior, seed=seed, watched=watched and index < MAX_WATCHED)
        for index, part in enumerate(parts)
    ]
    return JointData(slug, encoded) if joint else encoded[0]


def encoded_prior(model: Model, images: TrainingImages | None) -> PriorImages | None:
    """Return the class images with the states of their prompts; None where there are none.

    Each distinct prompt is encoded once: often all images share one.
    """
    if images is None:
        return None
    numbers = {prompt: row for row, prompt in enumerate(dict.fromkeys(images.prompts))}
    prompts, rows = list(numbers), torch.tensor([numbers[each] for each in images.prompts])
    return PriorImages(
        images.latents,
        model.encoder.encode(prompts)[rows],
        select_rows(added_conditions(model.pipeline, prompts, images.latents), rows),
    )
