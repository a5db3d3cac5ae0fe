"""Concepts of random data, and how the tests train LoRAs on them."""

from dataclasses import replace

import pytest
import torch

from mace_exp.methods.mace.lora import LoraShape
from mace_exp.methods.mace.timesteps import focal_density
from mace_exp.methods.mace.training import ConceptData, LoraTraining, PriorImages, train_loras
from mace_exp.utils.seeding import generator
from tests.tiny import tiny_pipeline

LENGTH = 24
SHAPE = LoraShape(rank=2, alpha=3)
TRAINING = LoraTraining(steps=4, learning_rate=1e-2, density=focal_density(), seed=3, batch_size=2)


@pytest.fixture
def pipeline():
    """A model of the test's own, to change: files that import it put it before that of conftest."""
    return tiny_pipeline(context_length=LENGTH)


def concept(slug, images=3, *, masked=True, prior=False):
    source = generator(0, slug)
    return ConceptData(
        slug=slug,
        latents=torch.randn(images, 4, 8, 8, generator=source),
        states=torch.randn(images, LENGTH, 32, generator=source),
        positions=torch.rand(images, LENGTH, generator=source) < 0.3,
        masks=(torch.rand(images, 32, 32, generator=source) < 0.5).float() if masked else None,
        prior=PriorImages(torch.randn(4, 4, 8, 8), torch.randn(4, LENGTH, 32)) if prior else None,
    )


CONCEPTS = [concept("cat"), concept("monet", 2, masked=False), concept("dog", 5)]


def train(pipeline, concepts, shape=SHAPE, training=TRAINING, **options):
    return train_loras(
        pipeline.unet, concepts, pipeline.scheduler, shape=shape, training=training, **options
    )


def assert_same(first, second, atol=1e-10):
    """In float64: AdamW divides by gradients, and near zero these are rounding errors."""
    assert first.factors.keys() == second.factors.keys()
    for path, pair in first.factors.items():
        torch.testing.assert_close(pair.down, second.factors[path].down, rtol=0, atol=atol)
        torch.testing.assert_close(pair.up, second.factors[path].up, rtol=0, atol=atol)


SHAPES = {
    "plain": SHAPE,
    "dropout": replace(SHAPE, dropout=0.3),
    "all targets": replace(SHAPE, targets=("to_k", "to_v", "to_q", "to_out")),
}
