"""What LoRAs are trained on: the datasets of the concepts, encoded once by the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.dataset import Instances, MACEDataset
from mace_exp.data.probes import probe_of
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.snapshots import MOST_OF_JOINT
from mace_exp.methods.mace.training import ConceptData, JointData, PriorImages, TrainingData
from mace_exp.models.denoiser import added_conditions, select_rows
from mace_exp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class ConceptTraining:
    """One concept of a LoRA: its images, masks [n, H, W] (None: the whole image) and whether the
    end of the text counts as its tokens. Plain values, which can be sent to other ranks."""

    concept: Concept
    images: TrainingImages
    masks: Tensor | None
    end_of_text: bool

    def dataset(self, model: Model) -> MACEDataset:
        """Return the concept as a dataset.

        Raises:
            ValueError: a prompt that does not name the concept or is too long, or a mask that does
                not fit its image.
        """
        images = self.images
        return MACEDataset(
            model.encoder.tokenizer,
            [Instances(self.concept.name, images.prompts, images.images, self.masks)],
            end_of_text=self.end_of_text,
            context_length=model.encoder.context_length,
        )

    def encoded(
        self, model: Model, prior: PriorImages | None, *, seed: int, watched: bool
    ) -> ConceptData:
        """Return what the UNet trains on; `watched` adds a probe of the concept's attention."""
        dataset, latents = self.dataset(model), self.images.latents
        return ConceptData(
            slug=self.concept.slug,
            latents=latents,
            states=model.encoder.encode(dataset.instance_prompts),
            positions=dataset.concept_positions,
            masks=self.masks,
            prior=prior,
            probe=probe_of(model, self.concept, self.images, seed=seed) if watched else None,
            added=added_conditions(model.pipeline, dataset.instance_prompts, latents),
        )


def training_data(
    model: Model,
    slug: str,
    parts: Sequence[ConceptTraining],
    prior: PriorImages | None,
    *,
    seed: int,
    watched: bool,
    joint: bool,
) -> TrainingData:
    """Return the data of one LoRA, of one concept or (`joint`) of several."""
    encoded = [
        part.encoded(model, prior, seed=seed, watched=watched and index < MOST_OF_JOINT)
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
