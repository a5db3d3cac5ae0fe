"""What tells models apart: the key of everything that is cached for one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.sampling import noise_schedule_config

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor, nn

ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
_LATENTS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
"""Of the VAE: what its numbers are to the UNet."""
_OFF = ("null", "false", "0", "0.0")


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return 16 hex digits that tell models apart: the key of everything that is cached for one.

    Text encoders, vocabularies and cross-attention projections count in full; of the other weights
    of UNet and VAE about 256 numbers per tensor (a retrained model differs everywhere). Numbers are
    rounded to float16, so that storing a float32 model in half precision keeps its fingerprint
    (loading one in bfloat16 does not). Of the scheduler what every other takes over counts, and how
    the VAE's latents are scaled.
    """
    digest = blake2b(digest_size=8)
    _add_text_side(digest, pipeline)
    whole = {f"{name}.weight" for name in cross_attention_projections(pipeline.unet)}
    _add_tensors(digest, pipeline.unet.state_dict(), whole=whole)
    _add_tensors(digest, pipeline.vae.state_dict(), whole=())
    _add_numbers(digest, noise_schedule_config(pipeline.scheduler.config))
    _add_numbers(digest, {key: pipeline.vae.config.get(key) for key in _LATENTS})
    if pipeline.config.get("force_zeros_for_empty_prompt"):  # SDXL: what guidance leads away from
        digest.update(b"zeros for no words")
    return digest.hexdigest()


def text_fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return 16 hex digits that name tokenizers and text encoders alone, rounded as above.

    Statistics of prompts depend on nothing else: models that share a text encoder (Stable Diffusion
    1.4 and 1.5, a model and what was erased from it) share them.
    """
    digest = blake2b(digest_size=8)
    _add_text_side(digest, pipeline)
    return digest.hexdigest()


def _add_text_side(digest: Any, pipeline: DiffusionPipeline) -> None:
    for name in TOKENIZERS:
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            vocabulary = sorted(tokenizer.get_vocab().items())
            digest.update(repr((tokenizer.model_max_length, tokenizer.pad_token_id)).encode())
            digest.update(json.dumps(vocabulary).encode())
    for name in ENCODERS:
        encoder = getattr(pipeline, name, None)
        if encoder is not None:
            _add_tensors(digest, _encoder_state(encoder))


def _add_tensors(
    digest: Any, tensors: Mapping[str, Tensor], *, whole: Iterable[str] | None = None
) -> None:
    """Hash tensors by name; those not in `whole` (None: all) by a strided sample."""
    import torch

    complete = None if whole is None else set(whole)
    for name in sorted(tensors):
        flat = tensors[name].detach().flatten()
        if complete is not None and name not in complete:
            flat = flat[:: max(1, flat.numel() // 256)]
        digest.update(f"{name} {list(tensors[name].shape)}".encode())
        digest.update(flat.to("cpu", torch.float16).contiguous().numpy().tobytes())


def _add_numbers(digest: Any, numbers: Mapping[str, Any]) -> None:
    """Hash what a configuration says. Off is the same as not there: some classes of scheduler lack
    a key that others have."""
    said = {
        key: json.dumps(each, default=lambda array: array.tolist()) for key, each in numbers.items()
    }
    digest.update(repr(sorted(each for each in said.items() if each[1] not in _OFF)).encode())


def _encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Name tensors as transformers 5 does, so that both versions give one fingerprint."""
    state = {name.removeprefix("text_model."): t for name, t in encoder.state_dict().items()}
    return {name: t for name, t in state.items() if not name.endswith("position_ids")}
