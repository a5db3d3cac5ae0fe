"""A LoRA at rest: its start, its file, and that diffusers and peft read it as we mean it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from mace_exp.methods.mace.lora import Factors, Lora, LoraShape, initial_lora, load_lora, save_lora
from mace_exp.methods.mace.stacked import stacked_loras
from mace_exp.models.editing import edited_weights
from mace_exp.models.projections import cross_attention_projections
from tests.tiny import tiny_pipeline

ALL = ("to_k", "to_v", "to_q", "to_out")


@pytest.fixture
def pipeline():
    return tiny_pipeline()


def trained(unet, shape, seed=0):
    """Return a LoRA whose B is not zero any more."""
    lora = initial_lora(unet, shape, seed, "cat")
    source = torch.Generator().manual_seed(seed)
    return Lora(
        {
            path: Factors(pair.down, 0.1 * torch.randn(pair.up.shape, generator=source))
            for path, pair in lora.factors.items()
        },
        shape,
    )


def output(unet):
    source = torch.Generator().manual_seed(5)
    latents = torch.randn(2, 4, 8, 8, generator=source)
    with torch.no_grad():
        return unet(latents, 300, torch.randn(2, 77, 32, generator=source)).sample


def test_a_rank_that_no_change_can_have_is_refused(pipeline) -> None:
    layers = cross_attention_projections(pipeline.unet).values()
    highest = max(min(layer.weight.shape) for layer in layers)
    assert initial_lora(pipeline.unet, LoraShape(rank=highest, alpha=1), 0, "cat")
    with pytest.raises(ValueError, match=f"rank = {highest + 1} is above {highest}"):
        initial_lora(pipeline.unet, LoraShape(rank=highest + 1, alpha=1), 0, "cat")


def test_the_start_depends_on_seed_and_concept_alone(pipeline):
    shape = LoraShape(rank=4, alpha=4)
    first = initial_lora(pipeline.unet, shape, 0, "cat")
    again = initial_lora(tiny_pipeline(seed=7).unet, shape, 0, "cat")
    others = [initial_lora(pipeline.unet, shape, *key) for key in ((1, "cat"), (0, "dog"))]
    assert first.factors.keys() == cross_attention_projections(pipeline.unet).keys()
    for path, pair in first.factors.items():
        assert torch.equal(pair.down, again.factors[path].down) and not pair.up.any()
        assert not any(torch.equal(pair.down, other.factors[path].down) for other in others)


def test_the_start_has_the_published_spread(pipeline):
    lora = initial_lora(pipeline.unet, LoraShape(rank=8, alpha=8), 0, "cat")
    drawn = torch.cat([pair.down.flatten() for pair in lora.factors.values()])
    # 14 x 8 x 32 draws: the estimate of a standard deviation is good to 2 %.
    assert float(drawn.std()) == pytest.approx(1 / 8, rel=0.06)


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_a_file_keeps_everything(pipeline, tmp_path, init):
    shape = LoraShape(rank=2, alpha=3.5, dropout=0.1, targets=ALL, init=init)
    lora = trained(pipeline.unet, shape)
    save_lora(tmp_path / "cat.safetensors", lora, {"concept": "cat"})
    loaded = load_lora(tmp_path / "cat.safetensors")
    assert set(loaded.shape.targets) == set(ALL) and loaded.shape.scale == shape.scale
    assert (loaded.shape.dropout, loaded.shape.init) == (0.1, init)
    assert loaded.factors.keys() == lora.factors.keys()
    for path in lora.factors:
        assert torch.equal(loaded.change(path), lora.change(path))


def test_another_file_is_refused(tmp_path):
    save_file({"weight": torch.eye(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no LoRA"):
        load_lora(tmp_path / "other.safetensors")


@pytest.mark.parametrize("targets", [("to_k", "to_v"), ALL])
def test_keys_are_those_of_peft(pipeline, tmp_path, targets):
    lora = trained(pipeline.unet, LoraShape(rank=2, alpha=2, targets=targets))
    save_lora(tmp_path / "cat.safetensors", lora)
    names = list(cross_attention_projections(pipeline.unet, targets))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names), pipeline.unet)
    expected = {f"unet.{name}" for name in get_peft_model_state_dict(pipeline.unet)}
    assert load_file(tmp_path / "cat.safetensors").keys() == expected


@pytest.mark.parametrize("alpha", [2.0, 5.0])
@pytest.mark.parametrize("targets", [("to_k", "to_v"), ("to_v",), ALL])
def test_diffusers_loads_the_file_alone(pipeline, tmp_path, alpha, targets):
    lora = trained(pipeline.unet, LoraShape(rank=2, alpha=alpha, targets=targets))
    save_lora(tmp_path / "cat.safetensors", lora)
    weights = {
        f"{path}.weight": module.weight.detach() + lora.change(path)
        for path, module in cross_attention_projections(pipeline.unet, targets).items()
    }
    before = output(pipeline.unet)
    with edited_weights(pipeline.unet, weights):
        expected = output(pipeline.unet)
    with stacked_loras(pipeline.unet, [lora]):
        stacked = output(pipeline.unet)
    pipeline.load_lora_weights(tmp_path / "cat.safetensors")
    torch.testing.assert_close(output(pipeline.unet), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stacked, expected, rtol=1e-5, atol=1e-5)
    assert (expected - before).abs().max() > 1e-3


def test_stacked_loras_need_one_shape(pipeline):
    loras = [initial_lora(pipeline.unet, LoraShape(rank=r, alpha=1), 0, "cat") for r in (1, 2)]
    for wrong in (loras, []):
        with pytest.raises(ValueError, match="one shape"), stacked_loras(pipeline.unet, wrong):
            pass


def test_each_group_goes_through_its_own_lora(pipeline):
    unet, shape = pipeline.unet.double(), LoraShape(rank=2, alpha=3, targets=ALL)
    loras = [trained(unet, shape, seed) for seed in range(3)]
    latents, states = torch.randn(6, 4, 8, 8).double(), torch.randn(6, 77, 32).double()
    with torch.no_grad():
        with stacked_loras(unet, loras):
            together = unet(latents, 300, states).sample
        for index, lora in enumerate(loras):
            part = slice(2 * index, 2 * index + 2)
            with stacked_loras(unet, [lora]):
                alone = unet(latents[part], 300, states[part]).sample
            torch.testing.assert_close(together[part], alone, rtol=1e-9, atol=1e-9)


def test_half_precision_models_keep_their_type(pipeline):
    unet = pipeline.unet.to(torch.bfloat16)
    lora = trained(unet, LoraShape(rank=2, alpha=2))
    latents, states = torch.randn(1, 4, 8, 8).bfloat16(), torch.randn(1, 77, 32).bfloat16()
    with stacked_loras(unet, [lora]) as modules:
        assert unet(latents, 300, states).sample.dtype == torch.bfloat16
        assert all(module.down.dtype == torch.float32 for module in modules.values())
