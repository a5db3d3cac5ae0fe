"""Capture of cross-attention: it sees the truth, changes nothing, and always lets go."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from mace_exp.methods.mace.attention_loss import AttentionLoss, AttentionTarget, mask_on_grid
from mace_exp.models.attention import (
    attention_grid,
    quick_self_attention,
    record_attention,
    visible_attention,
)
from mace_exp.models.unet import attention_layers
from tests.tiny import tiny_pipeline

LENGTH = 24


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(context_length=LENGTH)


@pytest.fixture(scope="module")
def unet(pipeline):
    return pipeline.unet


def inputs(batch=2, size=8, seed=0):
    source = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, size, size, generator=source)
    return latents, 300, torch.randn(batch, LENGTH, 32, generator=source)


def processors(unet):
    return {name: id(value) for name, value in unet.attn_processors.items()}


@torch.no_grad()
def test_watching_changes_nothing(unet):
    expected = unet(*inputs()).sample
    with visible_attention(unet, lambda layer, probabilities: None), quick_self_attention(unet):
        watched = unet(*inputs()).sample
    # Fused and plain attention round differently.
    torch.testing.assert_close(watched, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_probabilities_are_those_of_the_layer(unet):
    seen, read = {}, {}
    layers = attention_layers(unet)
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: read.update({name: (args, kwargs)}),
            with_kwargs=True,
        )
        for name, layer in layers.items()
    ]
    with visible_attention(unet, seen.__setitem__):
        unet(*inputs())
    for hook in hooks:
        hook.remove()
    assert seen.keys() == layers.keys() and len(seen) == 7
    for name, layer in layers.items():
        (hidden,), kwargs = read[name]
        query, key = (
            layer.to_q(hidden),
            layer.get_submodule("to_k")(kwargs["encoder_hidden_states"]),
        )
        split = [t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (query, key)]
        expected = (split[0] @ split[1].mT * layer.scale).softmax(dim=-1)
        assert seen[name].shape == (2, layer.heads, hidden.shape[1], LENGTH)
        torch.testing.assert_close(seen[name], expected, rtol=1e-5, atol=1e-6)


def test_processors_come_back_even_after_an_error(unet):
    before = processors(unet)
    with pytest.raises(RuntimeError), visible_attention(unet, print), quick_self_attention(unet):
        assert processors(unet) != before
        assert sum(isinstance(p, AttnProcessor) for p in unet.attn_processors.values()) == 7
        raise RuntimeError
    assert processors(unet) == before


@pytest.mark.parametrize(
    ("latents", "queries", "grid"),
    [((64, 64), 4096, (64, 64)), ((64, 64), 64, (8, 8)), ((12, 12), 9, (3, 3))]
    + [((64, 96), 24, (4, 6)), ((9, 15), 40, (5, 8)), ((1, 1), 1, (1, 1))],
)
def test_grids(latents, queries, grid):
    assert attention_grid(queries, latents) == grid


def test_a_grid_that_is_none():
    with pytest.raises(ValueError, match="10 queries fit no halving"):
        attention_grid(10, (8, 8))


def test_grids_are_those_of_the_unet(unet):
    sizes = []
    with torch.no_grad(), visible_attention(unet, lambda _, p: sizes.append(p.shape[2])):
        unet(*inputs(size=10))
    assert {attention_grid(size, (10, 10)) for size in sizes} == {(10, 10), (5, 5), (3, 3)}


def test_masks_are_taken_at_the_nearest_position_and_cut_at_a_half():
    mask = torch.tensor([[0.2, 1.0, 0.6, 0.0], [1.0] * 4, [0.4, 1.0, 0.51, 1.0], [1.0] * 4])
    assert mask_on_grid(mask[None], 1, (2, 2)).tolist() == [[0, 1, 0, 1]]
    assert torch.equal(mask_on_grid(None, 2, (2, 3)), torch.ones(2, 6))


def target(seed, images=2, masked=True):
    source = torch.Generator().manual_seed(seed)
    positions = torch.rand(images, LENGTH, generator=source) < 0.3
    masks = (torch.rand(images, 32, 32, generator=source) < 0.5).float()
    return AttentionTarget(positions, masks if masked else None)


@torch.no_grad()
def test_the_loss_is_the_norm_of_the_block(unet):
    """Chosen entries, gathered one image at a time, as the paper writes it."""
    targets, seen = [target(1), target(2, masked=False)], {}
    loss = AttentionLoss(targets, (8, 8))
    with visible_attention(unet, seen.__setitem__):
        unet(*inputs(batch=4))
    with visible_attention(unet, loss):
        unet(*inputs(batch=4))
    for layer, probabilities in seen.items():
        grid = attention_grid(probabilities.shape[2], (8, 8))
        for index, image in enumerate(probabilities):
            one = targets[index // 2]
            mask = mask_on_grid(one.masks, 2, grid)[index % 2].bool()
            block = image[:, mask][:, :, one.positions[index % 2]]
            torch.testing.assert_close(loss.layers[layer].flatten()[index], block.norm())
    total = torch.stack([norms.mean(dim=1) for norms in loss.layers.values()]).sum(dim=0)
    torch.testing.assert_close(loss.total(), total)
    assert loss.total().shape == (2,)


def test_images_after_the_first_of_a_group_are_left_out():
    source = torch.Generator().manual_seed(0)
    probabilities = torch.rand(6, 2, 16, LENGTH, generator=source)
    short, whole = (AttentionLoss([target(1), target(2)], (4, 4)) for _ in range(2))
    short("layer", probabilities)
    whole("layer", probabilities[[0, 1, 3, 4]])
    torch.testing.assert_close(short.total(), whole.total())


@pytest.mark.parametrize("empty", ["positions", "masks", "probabilities"])
def test_nothing_to_push_down_has_a_gradient_of_zero(empty):
    positions, masks = torch.ones(1, LENGTH, dtype=torch.bool), torch.ones(1, 4, 4)
    probabilities = torch.rand(1, 2, 16, LENGTH)
    {"positions": positions, "masks": masks, "probabilities": probabilities}[empty].zero_()
    probabilities.requires_grad_(True)
    loss = AttentionLoss([AttentionTarget(positions, masks)], (4, 4))
    loss("layer", probabilities)
    loss.total().sum().backward()
    assert not loss.total().any()
    assert probabilities.grad is not None and not probabilities.grad.any()


@torch.no_grad()
def test_maps_average_heads_layers_and_steps(unet):
    seen = []
    with record_attention(unet, 2, (8, 8)) as maps:
        unet(*inputs(seed=1))
        unet(*inputs(seed=2))
    for seed in (1, 2):
        with visible_attention(unet, lambda layer, p: seen.append(p)):
            unet(*inputs(seed=seed))
    assert set(maps.maps()) == {(8, 8), (4, 4), (2, 2)}
    for grid, averaged in maps.maps().items():
        same = [p.mean(dim=1) for p in seen if p.shape[2] == grid[0] * grid[1]]
        torch.testing.assert_close(averaged, torch.stack(same).mean(dim=0).unflatten(1, grid))
        torch.testing.assert_close(averaged.sum(dim=-1), torch.ones(2, *grid))


@torch.no_grad()
def test_only_sizes_that_are_asked_for_are_kept(unet):
    with record_attention(unet, 2, (8, 8)) as every:
        unet(*inputs())
    with record_attention(unet, 2, (8, 8), grids=[(4, 4), (64, 64)]) as chosen:
        unet(*inputs())
    assert set(chosen.maps()) == {(4, 4)}
    torch.testing.assert_close(chosen.maps()[4, 4], every.maps()[4, 4])


@torch.no_grad()
def test_guidance_keeps_the_conditional_half(unet):
    latents, timestep, states = inputs(batch=4)
    with record_attention(unet, 2, (8, 8)) as doubled:
        unet(latents, timestep, states)
    with record_attention(unet, 2, (8, 8)) as alone:
        unet(latents[2:], timestep, states[2:])
    for grid, averaged in alone.maps().items():
        torch.testing.assert_close(doubled.maps()[grid], averaged, rtol=1e-5, atol=1e-6)


def test_maps_are_recorded_through_the_pipeline(pipeline):
    with record_attention(pipeline.unet, 1, (8, 8)) as maps:
        pipeline("a cat", num_inference_steps=2, output_type="latent")
    assert maps.maps()[8, 8].shape == (1, 8, 8, LENGTH)


def test_a_batch_of_another_size_is_refused(unet):
    with pytest.raises(ValueError, match="batch of 3"), record_attention(unet, 2, (8, 8)):
        unet(*inputs(batch=3))


@torch.no_grad()
def test_maps_of_tokens(unet):
    with record_attention(unet, 2, (8, 8)) as maps:
        unet(*inputs())
    everything = maps.of_tokens(torch.ones(LENGTH, dtype=torch.bool), (16, 16))
    torch.testing.assert_close(everything, torch.ones(2, 16, 16))
    one = torch.zeros(2, LENGTH, dtype=torch.bool)
    one[0, 3] = one[1, 5] = True
    chosen = maps.of_tokens(one, (8, 8), grids=[(8, 8)])
    expected = torch.stack([maps.maps()[8, 8][0, :, :, 3], maps.maps()[8, 8][1, :, :, 5]])
    torch.testing.assert_close(chosen, expected)
    with pytest.raises(ValueError, match="no attention recorded"):
        maps.of_tokens(one, (8, 8), grids=[(64, 64)])
