"""What a pipeline's denoiser reads of prompts, encoded as in the pipeline's call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mace_exp.models.devices import execution_device, in_batches, on_device
from mace_exp.models.editing import by_component, edited_pipeline
from mace_exp.models.text import TEXT_ENCODERS, TEXTS

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

TEXT_BATCH = 64


class TextStates:
    """Text arguments of the pipeline's call; each distinct prompt is encoded once."""

    def __init__(
        self, pipeline: DiffusionPipeline, prompts: Sequence[str], *, guided: bool
    ) -> None:
        distinct = list(dict.fromkeys(prompts))
        self._row = {prompt: row for row, prompt in enumerate(distinct)}
        names = [*map(repr, distinct)]

        def encode(part: slice) -> dict[str, Tensor]:
            return _encode(pipeline, distinct[part])

        with on_device(pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
            encoded = [*in_batches(encode, names, TEXT_BATCH, TEXTS)]
            self._negative = _unconditional(pipeline) if guided else {}
        self._states = {name: torch.cat([each[name] for each in encoded]) for name in encoded[0]}

    def same_as(self, other: TextStates) -> set[str]:
        """Return the prompts whose arguments equal those in `other`, states of the same prompts;
        none where the unconditional embeddings differ."""
        guides = [torch.equal(each, other._negative[name]) for name, each in self._negative.items()]
        equal = [
            (states == other._states[name]).flatten(1).all(1)
            for name, states in self._states.items()
        ]
        same = torch.stack(equal).all(0).tolist()
        return {prompt for prompt, row in self._row.items() if same[row] and all(guides)}

    def of(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        rows = torch.tensor([self._row[prompt] for prompt in prompts])
        positive = {name: states[rows] for name, states in self._states.items()}
        negative = {
            f"negative_{name}": states.repeat_interleave(len(rows), 0)
            for name, states in self._negative.items()
        }
        return positive | negative


@torch.no_grad()
def _encode(pipeline: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Return prompt_embeds and, for SDXL, pooled_prompt_embeds."""
    encoded = pipeline.encode_prompt(
        prompts,
        device=execution_device(pipeline.text_encoder),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    pooled = {"pooled_prompt_embeds": encoded[2]} if len(encoded) > 2 else {}
    return {"prompt_embeds": encoded[0], **pooled}


def _unconditional(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """Return the unconditional embeddings: of the empty prompt, or zeros (SDXL)."""
    states = _encode(pipeline, [""])
    if not pipeline.config.get("force_zeros_for_empty_prompt"):
        return states
    return {name: torch.zeros_like(each) for name, each in states.items()}


def prompts_with_same_states(
    pipeline: DiffusionPipeline,
    weights: Mapping[str, Tensor],
    prompts: Sequence[str],
    *,
    guided: bool,
) -> set[str]:
    """Return the prompts for which the denoiser reads the same numbers with the edited `weights`.

    With the same noise, the edited model draws the same pictures of them. None where the edit
    changes more than text encoders or, if pictures are `guided`, what guidance starts from.
    """
    if not prompts or not by_component(weights).keys() <= set(TEXT_ENCODERS):
        return set()
    before = TextStates(pipeline, prompts, guided=guided)
    with edited_pipeline(pipeline, weights):
        return before.same_as(TextStates(pipeline, prompts, guided=guided))
