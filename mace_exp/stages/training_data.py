"""What the stage lora trains on: the datasets of the concepts, encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from mace_exp.concepts.concept import Concept
from mace_exp.data.dataset import Instances, MACEDataset
from mace_exp.methods.mace.training import ConceptData, JointData, PriorImages, TrainingData
from mace_exp.models.denoiser import added_conditions, select_rows
from mace_exp.stages.snapshots import MOST_OF_JOINT, probe_of

if TYPE_CHECKING:
    from mace_exp.stages.run import Run


def training_data(work: Run, groups: Mapping[str, Sequence[Concept]]) -> list[TrainingData]:
    """Return the data of each LoRA, by the concepts that share it."""
    data: list[TrainingData] = []
    for slug, concepts in groups.items():
        parts = [
            _concept_data(work, concept, watched=index < MOST_OF_JOINT)
            for index, concept in enumerate(concepts)
        ]
        data.append(parts[0] if work.config.lora.per_concept else JointData(slug, parts))
    return data


def dataset(work: Run, concept: Concept) -> MACEDataset:
    """Return the images, masks and prompts of a concept as a dataset.

    Raises:
        ValueError: a prompt that does not name the concept or is too long, or a mask that does not
            fit its image.
    """
    training, masks = work.training_images[concept.slug], work.training_masks[concept.slug]
    return MACEDataset(
        work.encoder.tokenizer,
        [Instances(concept.name, training.prompts, training.images, masks)],
        end_of_text=work.settings[concept.slug].lora.end_of_text,
        context_length=work.encoder.context_length,
    )


def _concept_data(work: Run, concept: Concept, *, watched: bool) -> ConceptData:
    known, latents = dataset(work, concept), work.training_images[concept.slug].latents
    return ConceptData(
        slug=concept.slug,
        latents=latents,
        states=work.encoder.encode(known.instance_prompts),
        positions=known.concept_positions,
        masks=work.training_masks[concept.slug],
        prior=work.encoded_prior,
        probe=probe_of(work, concept) if watched and work.config.lora.snapshots else None,
        added=added_conditions(work.pipeline, known.instance_prompts, latents),
    )


def encoded_prior(work: Run) -> PriorImages | None:
    """Return the class images with the states of their prompts; None where there are none.

    Each prompt is encoded once: often all images share one.
    """
    images = work.prior_images
    if images is None:
        return None
    numbers = {prompt: row for row, prompt in enumerate(dict.fromkeys(images.prompts))}
    prompts, rows = list(numbers), torch.tensor([numbers[each] for each in images.prompts])
    return PriorImages(
        images.latents,
        work.encoder.encode(prompts)[rows],
        select_rows(added_conditions(work.pipeline, prompts, images.latents), rows),
    )
