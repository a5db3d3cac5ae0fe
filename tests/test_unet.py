"""Finding the projections of cross-attention, and changing a UNet for a while."""

import pytest
import torch
from tiny import tiny_pipeline
from torch import nn

from mace_exp.erasure.unet import (
    assign_weights,
    attention_layers,
    frozen,
    projection_weights,
    projections,
    replaced_modules,
    replaced_weights,
)


@pytest.fixture
def unet():
    return tiny_pipeline().unet


def snapshot(unet):
    return {name: value.clone() for name, value in unet.state_dict().items()}


def unchanged(unet, before):
    after = unet.state_dict()
    return list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)


def test_cross_attention_is_found_and_only_that(unet):
    layers = attention_layers(unet)
    assert len(layers) == 7 and all(name.endswith(".attn2") for name in layers)
    assert all(name.endswith(".attn1") for name in attention_layers(unet, cross=False))
    weights = projection_weights(unet)
    assert len(weights) == 14 and all(weight.shape[1] == 32 for weight in weights.values())
    assert weights.keys() <= dict(unet.named_parameters()).keys()
    assert len(projections(unet, ("to_q", "to_out.0"))) == 14


def test_wrong_targets_and_models_are_refused(unet):
    with pytest.raises(ValueError, match="to_x.*to_k.*is allowed"):
        projections(unet, ("to_k", "to_x"))
    with pytest.raises(ValueError, match="at least one"):
        projections(unet, ())
    with pytest.raises(ValueError, match="no cross-attention"):
        projection_weights(nn.Linear(2, 2))


def test_a_bias_is_refused(unet):
    layer = next(iter(attention_layers(unet).values()))
    layer.to_k.bias = nn.Parameter(torch.zeros(layer.to_k.out_features))
    with pytest.raises(ValueError, match="to_k has a bias"):
        projection_weights(unet)


def test_weights_are_replaced_for_a_while(unet):
    before = snapshot(unet)
    other = {name: weight + 1 for name, weight in projection_weights(unet).items()}
    with pytest.raises(RuntimeError), replaced_weights(unet, other):
        assert all(torch.equal(unet.get_parameter(name), other[name]) for name in other)
        raise RuntimeError
    assert unchanged(unet, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"nowhere": torch.ones(1)}, "no parameter nowhere"),
        (lambda w: {name: weight[:1] for name, weight in w.items()}, "has shape"),
        (lambda w: {list(w)[-1]: torch.full_like(list(w.values())[-1], torch.nan)}, "not finite"),
    ],
)
def test_a_wrong_weight_changes_nothing(unet, change, message):
    before = snapshot(unet)
    weights = projection_weights(unet)
    good = {name: weight + 1 for name, weight in list(weights.items())[:2]}
    for attempt in (assign_weights, lambda *args: replaced_weights(*args).__enter__()):
        with pytest.raises(ValueError, match=message):
            attempt(unet, {**good, **change(weights)})
        assert unchanged(unet, before)


def test_assigned_weights_stay(unet):
    other = {name: weight + 1 for name, weight in projection_weights(unet).items()}
    assign_weights(unet, other)
    assert all(torch.equal(projection_weights(unet)[name], other[name]) for name in other)


def test_modules_are_replaced_for_a_while(unet):
    path = next(iter(projections(unet, ("to_out.0",))))
    original = unet.get_submodule(path)
    names = [name for name, _ in unet.named_modules()]
    with pytest.raises(RuntimeError), replaced_modules(unet, {path: nn.Identity()}):
        assert isinstance(unet.get_submodule(path), nn.Identity)
        raise RuntimeError
    assert unet.get_submodule(path) is original
    assert [name for name, _ in unet.named_modules()] == names


def test_freezing_ends(unet):
    unet.train()
    unet.conv_in.eval()
    unet.conv_out.requires_grad_(False)
    with frozen(unet):
        assert not unet.conv_in.training and not unet.mid_block.training
        assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert unet.mid_block.training and not unet.conv_in.training
    assert unet.conv_in.weight.requires_grad and not unet.conv_out.weight.requires_grad
