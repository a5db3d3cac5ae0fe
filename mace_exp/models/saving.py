"""Save a pipeline so that it loads with transformers 4 and transformers 5.

transformers 5 saves a CLIP text encoder without the tensor-name prefix that version 4 expects, and
a tokenizer without the two files that version 4 reads; it loads both formats. So the older format
is written (tested with 4.57 and 5.23).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.utils.files import atomic_folder

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor

PREFIX = "text_model."
TRANSFORMERS_PARTS = ("text_encoder*", "safety_checker")
ENCODER_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")


def save_pipeline(
    pipeline: DiffusionPipeline, folder: Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write the whole pipeline to `folder` atomically; an existing folder is replaced.

    `dtype` is the dtype of the stored weights (None: the pipeline's). In any case the
    configurations of the text encoder and the safety checker say float32, as diffusers loads all
    other parts.
    """
    from mace_exp.utils.tensors import system_errors

    with atomic_folder(folder) as temporary:
        with quiet(), system_errors(folder):
            pipeline.save_pretrained(temporary, safe_serialization=True)
        for encoder in sorted(temporary.glob("text_encoder*")):
            _rename_encoder(encoder)
        for part in TRANSFORMERS_PARTS:
            for file in sorted(temporary.glob(f"{part}/config.json")):
                _describe_as_float32(file)
        for tokenizer in sorted(temporary.glob("tokenizer*")):
            _write_vocabulary(tokenizer)
        if dtype is not None:
            for file in sorted(temporary.rglob("*.safetensors")):
                _store_as(file, dtype)


def _rename_encoder(folder: Path) -> None:
    """Prefix the tensor names of a CLIPTextModel (with a projection they have the prefix)."""
    from mace_exp.utils.tensors import save_tensors

    for file in sorted(folder.glob("*.safetensors")):
        tensors = _load(file)
        if any(name.startswith(ENCODER_PARTS) for name in tensors):
            save_tensors(file, {_prefixed(name): tensor for name, tensor in tensors.items()})
    for file in folder.glob("*.safetensors.index.json"):
        index = json.loads(file.read_text(encoding="utf-8"))
        index["weight_map"] = {_prefixed(n): shard for n, shard in index["weight_map"].items()}
        file.write_text(json.dumps(index, indent=2), encoding="utf-8")


def _prefixed(name: str) -> str:
    return f"{PREFIX}{name}" if name.startswith(ENCODER_PARTS) else name


def _describe_as_float32(file: Path) -> None:
    """Set dtype to float32: transformers 5 loads in the configured dtype, diffusers in float32."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_vocabulary(folder: Path) -> None:
    """Write vocab.json and merges.txt from tokenizer.json if they are missing."""
    source = folder / "tokenizer.json"
    if not source.exists() or (folder / "vocab.json").exists():
        return
    model = json.loads(source.read_text(encoding="utf-8"))["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    lines = "\n".join(["#version: 0.2", *merges])
    (folder / "merges.txt").write_text(lines + "\n", encoding="utf-8")


def _store_as(file: Path, dtype: torch.dtype) -> None:
    from mace_exp.utils.tensors import save_tensors

    tensors = _load(file)
    if any(tensor.is_floating_point() and tensor.dtype != dtype for tensor in tensors.values()):
        stored = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        save_tensors(file, stored)


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(file.read_bytes())  # no memory map: the file is about to be overwritten


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' progress bars and import notices inside the block; restore them after."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub import utils as hub
    from transformers.utils import logging as transformers_logging

    verbosity, hub_shows = (
        transformers_logging.get_verbosity(),
        not hub.are_progress_bars_disabled(),
    )
    libraries = (transformers_logging, diffusers_logging)
    shown = [each for each in libraries if each.is_progress_bar_enabled()]
    transformers_logging.set_verbosity_error()
    for each in libraries:
        each.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for each in shown:
            each.enable_progress_bar()
        # Last, because transformers switches the hub's bars together with its own.
        (hub.enable_progress_bars if hub_shows else hub.disable_progress_bars)()
