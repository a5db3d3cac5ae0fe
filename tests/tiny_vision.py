"""Tiny random vision models, each in a folder as the hub gives them."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

SIDE = 32
SHAPE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CUT: dict[str, Any] = {
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
}


def save_clip(folder: Path) -> Path:
    """Write a CLIP that embeds pictures in 8 dimensions."""
    text = CLIPTextConfig(**SHAPE, intermediate_size=16, vocab_size=50)
    vision = CLIPVisionConfig(**SHAPE, intermediate_size=16, image_size=SIDE, patch_size=8)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(**CUT).save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    """Write a DINOv2 of 16 dimensions, which reads no texts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Dinov2Model(Dinov2Config(**SHAPE, mlp_ratio=1, image_size=SIDE, patch_size=8))
    model.save_pretrained(folder)
    BitImageProcessor(**CUT).save_pretrained(folder)
    return folder
