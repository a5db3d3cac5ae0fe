"""Finding the projections of cross-attention, and changing a UNet for a while."""

import pytest
from torch import nn

from mace_exp.models.projections import projection_weights
from mace_exp.models.unet import attention_layers, frozen, replaced_modules
from tests.tiny import tiny_pipeline


@pytest.fixture
def unet():
    return tiny_pipeline().unet


def test_cross_attention_is_found_and_only_that(unet):
    layers = attention_layers(unet)
    assert len(layers) == 7 and all(name.endswith(".attn2") for name in layers)
    assert all(name.endswith(".attn1") for name in attention_layers(unet, cross=False))
    weights = projection_weights(unet)
    assert len(weights) == 14 and all(weight.shape[1] == 32 for weight in weights.values())
    assert weights.keys() <= dict(unet.named_parameters()).keys()
    assert not any(weight.requires_grad for weight in weights.values())
    with pytest.raises(ValueError, match="no cross-attention"):
        attention_layers(nn.Linear(2, 2))


def test_modules_are_replaced_for_a_while(unet):
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
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
