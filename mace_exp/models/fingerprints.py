"""Fingerprints of models: part of the key of everything cached for a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mace_exp.models.model_folders import ENCODERS, TOKENIZERS
from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.schedulers import noise_schedule_config

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor, nn

_LATENT_SCALING = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
"""Keys of the VAE's configuration that scale its latents for the UNet."""
_OFF = ("null", "false", "0", "0.0")


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return the fingerprint of a model, 16 hex digits: part of its cache keys.

    Text encoders, vocabularies and cross-attention projections are hashed completely; other weights
    of UNet and VAE by about 256 numbers per tensor (a retrained model differs everywhere). Numbers
    are rounded to float16, so that a float32 model stored in half precision keeps its fingerprint
    (one loaded in bfloat16 does not). The noise schedule and the scaling of the latents are hashed
    too.
    """
    digest = blake2b(digest_size=8)
    _add_text_side(digest, pipeline)
    whole = {f"{name}.weight" for name in cross_attention_projections(pipeline.unet)}
    _add_tensors(digest, pipeline.unet.state_dict(), whole=whole)
    _add_tensors(digest, pipeline.vae.state_dict(), whole=())
    _add_numbers(digest, noise_schedule_config(pipeline.scheduler.config))
    _add_numbers(digest, {key: pipeline.vae.config.get(key) for key in _LATENT_SCALING})
    if pipeline.config.get("force_zeros_for_empty_prompt"):  # SDXL: unconditional embedding
        digest.update(b"zeros for no words")
    return digest.hexdigest()


def text_fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return the fingerprint of tokenizers and text encoders only, 16 hex digits.

    Rounded as in `fingerprint`. Prompt statistics depend on nothing else: models with the same text
    encoder (Stable Diffusion 1.4 and 1.5, a model before and after erasure) share them.
    """
    digest = blake2b(digest_size=8)
    _add_text_side(digest, pipeline)
    return digest.hexdigest()


def _add_text_side(digest: blake2b, pipeline: DiffusionPipeline) -> None:
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
    digest: blake2b, tensors: Mapping[str, Tensor], *, whole: Iterable[str] | None = None
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


def _add_numbers(digest: blake2b, numbers: Mapping[str, Any]) -> None:
    """Hash configuration values. A value that is off counts as missing: some scheduler classes lack
    keys that others have."""
    encoded = {
        key: json.dumps(each, default=lambda array: array.tolist()) for key, each in numbers.items()
    }
    digest.update(repr(sorted(each for each in encoded.items() if each[1] not in _OFF)).encode())


def _encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Return tensors by their names in transformers 5, so that version 4 gives the same
    fingerprint."""
    state = {name.removeprefix("text_model."): t for name, t in encoder.state_dict().items()}
    return {name: t for name, t in state.items() if not name.endswith("position_ids")}


def require_fingerprint(pipeline: Any, wanted: str) -> None:
    """Raise ValueError unless this is the model that a run edited, by its fingerprint."""
    found = fingerprint(pipeline)
    if found != wanted:
        raise ValueError(
            f"the run edited the model {wanted}, this one is {found}: give the location of the "
            "original by --model"
        )
