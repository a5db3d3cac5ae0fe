"""Tiny random networks of the classes that judges load, each as users have it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from tests.tiny import tiny_tokenizer

SMALL: dict[str, Any] = dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)
SIDE = {"height": 32, "width": 32}
VISION: dict[str, Any] = SMALL | dict(image_size=32, patch_size=16)
STRIDES = (8, 16, 32)


def photo() -> np.ndarray:
    """The picture of a person that matplotlib ships (public domain), [600, 512, 3], uint8."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.asarray(Image.open(file).convert("RGB"))


def save_clip(folder: Path) -> Path:
    """Write a CLIP that reads 32 pixels a side."""
    tokenizer = tiny_tokenizer()
    text = SMALL | dict(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE)
    return _saved(folder, lambda: CLIPModel(config), images, tokenizer)


def save_siglip(folder: Path) -> Path:
    """Write a SigLIP that reads 32 pixels a side and texts of 16 tokens."""
    tokenizer = tiny_tokenizer(context_length=16)
    text = SMALL | dict(
        vocab_size=len(tokenizer),
        max_position_embeddings=16,
        projection_size=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = SiglipConfig(text_config=text, vision_config=VISION)
    images = SiglipImageProcessor(size=SIDE)
    return _saved(folder, lambda: SiglipModel(config), images, tokenizer)


def save_vit(folder: Path) -> Path:
    """Write an encoder of pictures that reads no text."""
    return _saved(folder, lambda: ViTModel(ViTConfig(**VISION)), ViTImageProcessor(size=SIDE))


def _saved(folder: Path, build: Any, *parts: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build().save_pretrained(folder)
    for each in parts:
        each.save_pretrained(folder)
    return folder


def save_arcface(file: Path, side: int = 112) -> Path:
    """Write a recogniser in ArcFace's layout: eight embeddings of the mean colours of a grid."""
    pool = helper.make_node(
        "AveragePool", ["image"], ["cells"], kernel_shape=[28, 28], strides=[28, 28]
    )
    flat = helper.make_node("Flatten", ["cells"], ["flat"])
    size = 3 * (side // 28) ** 2
    product = helper.make_node("MatMul", ["flat", "weight"], ["embedding"])
    return _onnx(
        file,
        [pool, flat, product],
        {"weight": np.random.default_rng(0).normal(size=(size, 8))},
        ("image", ["n", 3, side, side]),
        {"embedding": ["n", 8]},
    )


def save_yunet(file: Path, side: int = 64) -> Path:
    """Write a random network with YuNet's outputs."""
    random, nodes, weights, outputs = np.random.default_rng(1), [], {}, {}
    for stride in STRIDES:
        cells = (side // stride) ** 2
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            weights[f"w_{name}"] = random.normal(size=(width, 3, stride, stride)) / stride / 400
            weights[f"s_{name}"] = np.array([1, cells, width], dtype=np.int64)
            nodes += [
                helper.make_node(
                    *("Conv", ["image", f"w_{name}"], [f"c_{name}"]),
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                ),
                helper.make_node("Transpose", [f"c_{name}"], [f"t_{name}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t_{name}", f"s_{name}"], [f"r_{name}"]),
                helper.make_node("Sigmoid" if width == 1 else "Tanh", [f"r_{name}"], [name]),
            ]
            outputs[name] = [1, cells, width]
    return _onnx(file, nodes, weights, ("image", [1, 3, side, side]), outputs)


def _onnx(
    file: Path,
    nodes: list[Any],
    weights: dict[str, np.ndarray],
    image: tuple[str, list[Any]],
    outputs: dict[str, list[Any]],
) -> Path:
    kept = [
        numpy_helper.from_array(w if w.dtype == np.int64 else w.astype(np.float32), name)
        for name, w in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(image[0], TensorProto.FLOAT, image[1])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        kept,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(file))
    return file
