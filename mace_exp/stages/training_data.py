"""What the stage lora trains on: the datasets of the concepts, encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mace_exp.concepts import Concept
from mace_exp.conditioning import added_conditions
from mace_exp.data.dataset import ClassImages, Instances, MACEDataset
from mace_exp.erasure.training import ConceptData, JointData, PriorImages, TrainingData
from mace_exp.stages.snapshots import MOST_OF_JOINT, probe_of

if TYPE_CHECKING:
    from mace_exp.stages.run import Run


def training_data(work: Run, groups: Mapping[str, Sequence[Concept]]) -> list[TrainingData]:
    """Return the data of each LoRA, by the concepts that share it."""
    prior = _prior(work)
    data: list[TrainingData] = []
    for slug, concepts in groups.items():
        parts = [
            _concept_data(work, concept, prior, watched=index < MOST_OF_JOINT)
            for index, concept in enumerate(concepts)
        ]
        data.append(parts[0] if work.config.lora.per_concept else JointData(slug, parts))
    return data


def dataset(work: Run, concept: Concept) -> MACEDataset:
    """Return the images, masks and prompts of a concept, and the class images, as a dataset.

    Raises:
        ValueError: a prompt that does not name the concept or is too long, or a mask that does not
            fit its image.
    """
    training, prior = work.training_images[concept.slug], work.prior_images
    masks = work.training_masks[concept.slug]
    return MACEDataset(
        work.encoder.tokenizer,
        [Instances(concept.name, training.prompts, training.images, masks)],
        preserved=None if prior is None else ClassImages(prior.prompts, prior.images),
        end_of_text=work.settings[concept.slug].lora.end_of_text,
        context_length=work.encoder.context_length,
    )


def _concept_data(
    work: Run, concept: Concept, prior: PriorImages | None, *, watched: bool
) -> ConceptData:
    known, latents = dataset(work, concept), work.training_images[concept.slug].latents
    return ConceptData(
        slug=concept.slug,
        latents=latents,
        states=work.encoder.encode(known.instance_prompts),
        positions=known.concept_positions,
        masks=work.training_masks[concept.slug],
        prior=prior,
        probe=probe_of(work, concept) if watched and work.config.lora.snapshots else None,
        added=added_conditions(work.pipeline, known.instance_prompts, latents),
    )


def _prior(work: Run) -> PriorImages | None:
    images = work.prior_images
    if images is None:
        return None
    return PriorImages(
        images.latents,
        work.encoder.encode(images.prompts),
        added_conditions(work.pipeline, images.prompts, images.latents),
    )
