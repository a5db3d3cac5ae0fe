"""Stage fusion: refinement and LoRAs become one weight per layer (paper, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.methods.base import Edit, unet_edit
from mace_exp.methods.mace.fusion import FusionAccumulator, FusionSums, fuse, prompt_gram
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.lora_inputs import Loras
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.schema import FusionConfig
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.hashing import key_of
from mace_exp.utils.progress import progress

STAGE = "fusion"
VERSION = 1
REMEDY = "fusion.closeness, fusion.prior_weight or fusion.domain_weight"


def fuse_loras(
    context: Context,
    settings: FusionConfig,
    owners: Mapping[str, Sequence[Concept]],
    sentences: Mapping[str, Sequence[str]],
    refinement: Result[Tensor],
    loras: Result[Loras],
    preservation: tuple[Preservation, Mapping[str, float]],
    grams: GramFile,
) -> Result[Edit]:
    """Solve for weights that act like each LoRA on its concept's sentences and like the original
    weights on the retain set.

    `owners` are the concepts of each LoRA, by its slug; `preservation` comes with the weight of
    every term. `grams` holds the second moments that were computed with the refinement.
    """
    held, weights = preservation
    key = result_key(
        STAGE,
        VERSION,
        refinement=refinement.key,
        loras=loras.key,
        sentences=key_of({slug: list(each) for slug, each in sentences.items()}),
        closeness=settings.closeness,
        preserved=held.inputs(weights),
        **context.model.computed_by,
    )

    def make() -> Edit:
        sums = _sums(context, owners, sentences, loras.value, refinement.value, grams)
        fused = fuse(
            context.model.projections,
            refinement.value,
            sums,
            closeness=settings.closeness,
            preserved=held.weighted(weights),
            remedy=REMEDY,
        )
        return unet_edit(fused)

    return Result(key, make)


def sum_loras(context: Context, refinement: Result[Tensor], loras: Result[Loras]) -> Result[Edit]:
    """Add all LoRAs to the refined weights, W T + sum_c B_c A_c: the ablation without fusion."""
    key = result_key(
        "lora sum",
        VERSION,
        refinement=refinement.key,
        loras=loras.key,
        **context.model.computed_by,
    )

    def make() -> Edit:
        weights = transformed_weights(context.model.projections, refinement.value)
        for lora in loras.value.loras.values():
            weights = lora.added_to(weights)
        return unet_edit(weights)

    return Result(key, make)


def refined_edit(context: Context, refinement: Result[Tensor]) -> Result[Edit]:
    """Return the refined weights W T as the edit: the ablation without LoRAs."""
    key = result_key("refined", VERSION, refinement=refinement.key, **context.model.computed_by)

    def make() -> Edit:
        return unet_edit(transformed_weights(context.model.projections, refinement.value))

    return Result(key, make)


def _sums(
    context: Context,
    owners: Mapping[str, Sequence[Concept]],
    sentences: Mapping[str, Sequence[str]],
    loras: Loras,
    transform: Tensor,
    grams: GramFile,
) -> FusionSums:
    encoder = context.model.encoder
    sums = FusionAccumulator(encoder.width)
    with progress("fusion", len(sentences), "concept") as advance:
        for slug, concepts in owners.items():
            lora, trained_under = loras.loras[slug], loras.transform(slug, transform)
            for concept in concepts:
                prompts = sentences[concept.slug]
                gram = grams.get(prompts)
                gram = prompt_gram(encoder, prompts) if gram is None else gram
                sums.add(gram, lora, trained_under)
                advance(1)
    return sums.result()
