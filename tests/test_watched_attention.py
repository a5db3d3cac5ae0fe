"""Attention that is watched while LoRAs are trained: the training does not notice."""

from dataclasses import replace

import pytest
import torch

from mace_exp.methods.mace.stacked import stacked_loras
from mace_exp.methods.mace.training import JointData
from mace_exp.models.probe import Probe, attended, mean_attention
from mace_exp.utils.seeding import generator
from tests.lora_training import CONCEPTS, LENGTH, SHAPE, SHAPES, TRAINING, train
from tests.lora_training import pipeline as pipeline


def watched(data, seed=0):
    source = generator(seed, data.slug, "probe")
    latents = torch.randn(4, 8, 8, generator=source)
    return replace(data, probe=Probe(latents, 300, data.states[0], data.positions[0]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_watching_changes_no_bit_of_the_training(pipeline, shape):
    seen, unseen = [], []
    state = torch.get_rng_state()
    plain = train(pipeline, CONCEPTS, shape, on_step=unseen.append)
    training = replace(TRAINING, watched=frozenset({0, 1, 3}))
    looked = train(
        pipeline, [watched(data) for data in CONCEPTS], shape, training, on_step=seen.append
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [replace(row, attention={}) for row in seen] == unseen
    for slug, lora in plain.items():
        for path, pair in lora.factors.items():
            assert torch.equal(pair.down, looked[slug].factors[path].down)
            assert torch.equal(pair.up, looked[slug].factors[path].up)
    assert {row.step for row in seen if row.attention} == {0, 1, 3}


def test_what_is_watched_is_the_attention_under_the_factors_of_that_step(pipeline):
    """Without dropout, whatever the training's own; each concept under its own LoRA alone."""
    pipeline.unet.double()
    shape, rows = replace(SHAPE, dropout=0.5), []
    concepts = [watched(data) for data in CONCEPTS]
    training = replace(TRAINING, watched=frozenset({0, 2}))
    train(pipeline, concepts, shape, training, on_step=rows.append)
    halfway = train(pipeline, CONCEPTS, shape, replace(TRAINING, steps=2))
    for data in concepts:
        start, later = (row.attention for row in rows if row.slug == data.slug and row.attention)
        assert data.probe is not None
        [before] = attended(pipeline.unet, [data.probe])
        with stacked_loras(pipeline.unet, [halfway[data.slug]]):
            [then] = attended(pipeline.unet, [data.probe])
        for grid in ((8, 8), (4, 4), (2, 2)):
            torch.testing.assert_close(start[data.slug][grid], before[grid])
            torch.testing.assert_close(later[data.slug][grid], then[grid])
            assert not torch.allclose(before[grid], then[grid], rtol=1e-3)


def test_the_share_of_attention_is_all_of_it_for_all_tokens(pipeline):
    data = CONCEPTS[0]
    every = Probe(data.latents[0], 300, data.states[0], torch.ones(LENGTH, dtype=torch.bool))
    none = replace(every, positions=torch.zeros(LENGTH, dtype=torch.bool))
    whole, nothing = map(mean_attention, attended(pipeline.unet, [every, none]))
    assert whole == pytest.approx(1, rel=1e-5) and nothing == 0


def test_all_that_train_together_are_watched_or_none(pipeline):
    with pytest.raises(ValueError, match="number of probes: {'cat': 1, 'monet': 0}"):
        train(pipeline, [watched(CONCEPTS[0]), CONCEPTS[1]])
    rows = []
    joint = JointData("all", [watched(CONCEPTS[0]), CONCEPTS[1], watched(CONCEPTS[2])])
    training = replace(TRAINING, watched=frozenset({1}))
    train(pipeline, [joint], training=training, on_step=rows.append)
    assert [list(row.attention) for row in rows] == [[], ["cat", "dog"], [], []]
