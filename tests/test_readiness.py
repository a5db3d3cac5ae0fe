"""A pipeline that an edit would not reach is refused, with what to call first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    CustomDiffusionAttnProcessor,
)
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import (
    StableDiffusionImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import (
    StableDiffusionInpaintPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from peft import LoraConfig
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mace_exp.api import erase
from mace_exp.models.projections import projection_weights
from mace_exp.models.readiness import check_pipeline, check_read, unread
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline


def fused(pipeline: Any) -> None:
    pipeline.fuse_qkv_projections()


def with_a_lora(pipeline: Any) -> None:
    pipeline.unet.add_adapter(LoraConfig(r=1, target_modules=["to_k"]))


def with_a_text_lora(pipeline: Any) -> None:
    pipeline.text_encoder.add_adapter(LoraConfig(r=1, target_modules=["q_proj"]))


def with_edm(pipeline: Any) -> None:
    pipeline.scheduler = EDMDPMSolverMultistepScheduler()


def with_flows(pipeline: Any) -> None:
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()


def with_edm_of_its_own_betas(pipeline: Any) -> None:
    """Diffusers keeps keys that a class does not know."""
    pipeline.scheduler = EDMDPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)


def with_nine_channels(pipeline: Any) -> None:
    pipeline.unet.register_to_config(in_channels=9)


def offloaded(pipeline: Any) -> None:
    cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))


def compiled(pipeline: Any) -> None:
    """What torch.compile wraps is an attribute of this name (importing it takes seconds)."""
    object.__setattr__(pipeline.unet, "_orig_mod", pipeline.unet)


def in_eight_bits(pipeline: Any) -> None:
    pipeline.unet.conv_in.to(torch.float8_e4m3fn)


def in_parallel(pipeline: Any) -> None:
    pipeline.register_modules(unet=nn.DataParallel(pipeline.unet))


def with_an_adapter(pipeline: Any) -> None:
    pipeline.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def with_processors_of_their_own_weights(pipeline: Any) -> None:
    pipeline.unet.set_attn_processor(
        {
            name: CustomDiffusionAttnProcessor(
                train_kv=True, hidden_size=32, cross_attention_dim=32
            )
            for name in pipeline.unet.attn_processors
        }
    )


def predicting_samples(pipeline: Any) -> None:
    pipeline.scheduler.register_to_config(prediction_type="sample")


def with_zero_snr(pipeline: Any) -> None:
    pipeline.scheduler = DDIMScheduler(rescale_betas_zero_snr=True)


def compiled_in_place(pipeline: Any) -> None:
    """What module.compile() sets (compiling takes seconds)."""
    pipeline.unet.mid_block._compiled_call_impl = pipeline.unet.mid_block.forward


def with_groups_offloaded(pipeline: Any) -> None:
    pipeline.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


def cast_layer_by_layer(pipeline: Any) -> None:
    pipeline.unet.enable_layerwise_casting(torch.bfloat16, torch.float32)


def with_normed_weights(pipeline: Any) -> None:
    weight_norm(pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k)


def with_an_untrainable_text_encoder(pipeline: Any) -> None:
    with torch.inference_mode():
        pipeline.text_encoder.final_layer_norm.weight = nn.Parameter(
            torch.ones(32), requires_grad=False
        )


def with_a_tiny_autoencoder(pipeline: Any) -> None:
    pipeline.vae = AutoencoderTiny()


def with_a_variance(pipeline: Any) -> None:
    pipeline.unet.register_to_config(out_channels=8)


def with_text_in_self_attention(pipeline: Any) -> None:
    pipeline.unet.register_to_config(only_cross_attention=[False, True, False])


UNREADY: dict[str, tuple[Callable[[Any], None], str]] = {
    "fused": (fused, r"Call pipe.unet.unfuse_qkv_projections\(\) first"),
    "a LoRA": (with_a_lora, r"LoRA is loaded into pipe.unet: call pipe.unload_lora_weights\(\)"),
    "a LoRA of text": (with_a_text_lora, r"LoRA is loaded into pipe.text_encoder"),
    "EDM": (with_edm, "EDMDPMSolverMultistepScheduler, whose noise is not given by betas"),
    "EDM with betas": (with_edm_of_its_own_betas, "not given by betas"),
    "flow matching": (with_flows, "FlowMatchEulerDiscreteScheduler, whose noise"),
    "samples": (predicting_samples, "prediction_type is 'sample'; supported are epsilon, v_pred"),
    "zero SNR of noise": (with_zero_snr, "rescale_betas_zero_snr with prediction_type 'epsilon'"),
    "inpainting": (with_nine_channels, "reads 9 channels, as a model for inpainting"),
    "sequential offload": (offloaded, r"offloaded layer by layer .* load the pipeline anew"),
    "compiled": (compiled, "pipe.unet is compiled: erase from .*_orig_mod"),
    "eight bits": (in_eight_bits, "weights in torch.float8_e4m3fn"),
    "in parallel": (in_parallel, "pipe.unet is a DataParallel; supported is"),
    "an IP-adapter": (with_an_adapter, r"call pipe.unload_ip_adapter\(\)"),
    "own weights": (with_processors_of_their_own_weights, "has weights of its own"),
    "compiled in place": (compiled_in_place, "block of it, is compiled in place: load it anew"),
    "group offload": (with_groups_offloaded, r"offloaded layer by layer \(sequential or group"),
    "layerwise casting": (cast_layer_by_layer, "weights in torch.bfloat16 .*cast layer by layer"),
    "weight norm": (with_normed_weights, "computes weights from others .*remove_parametrizations"),
    "inference mode": (with_an_untrainable_text_encoder, r"loaded under torch.inference_mode\(\)"),
    "a tiny autoencoder": (with_a_tiny_autoencoder, "AutoencoderTiny; supported is AutoencoderKL"),
    "a variance": (with_a_variance, "predicts 8 channels, of which the 4"),
    "text in self-attention": (with_text_in_self_attention, "only_cross_attention = .*in other"),
    "no text encoder": (lambda p: setattr(p, "text_encoder", None), "has no text_encoder"),
}


@pytest.mark.parametrize("change", UNREADY, ids=str)
def test_a_pipeline_that_no_edit_reaches(change: str) -> None:
    spoil, message = UNREADY[change]
    pipeline = tiny_pipeline(context_length=24)
    spoil(pipeline)
    with pytest.raises(ValueError, match=message):
        erase(pipeline, "cat", kind="object", progress=False)


@pytest.mark.parametrize("kind", [StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline])
def test_a_pipeline_that_reads_an_image(pipeline: Any, kind: Any) -> None:
    parts = {**pipeline.components, "requires_safety_checker": False}
    with pytest.raises(ValueError, match=rf"{kind.__name__}, which reads an image .*from_pipe"):
        check_pipeline(kind(**parts))


def test_what_is_ready_passes_and_stays_as_it_was(pipeline: Any) -> None:
    class Mine(type(pipeline)):
        """Users add methods."""

    parts = {**pipeline.components, "requires_safety_checker": False}
    check_pipeline(Mine(**parts))
    fused(pipeline)
    pipeline.unet.unfuse_qkv_projections()
    check_pipeline(pipeline)
    pipeline.unet.requires_grad_(True)
    check_read(pipeline, [f"unet.{name}" for name in projection_weights(pipeline.unet)])
    assert all(each.requires_grad and each.grad is None for each in pipeline.unet.parameters())
    pipeline.unet.requires_grad_(False)


class ReadsElsewhere:
    """A processor that takes the keys of another module."""

    def __init__(self, other: nn.Linear) -> None:
        self.other = other

    def __call__(self, attn: Any, hidden_states: Any, **given: Any) -> Any:
        context = given.get("encoder_hidden_states")
        states = hidden_states if context is None else context
        keys = attn.to_k if context is None else self.other
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        scores = attn.get_attention_scores(query, attn.head_to_batch_dim(keys(states)))
        values = attn.head_to_batch_dim(attn.to_v(states))
        return attn.to_out[0](attn.batch_to_head_dim(scores @ values))


class WithoutGradient(AttnProcessor):
    def __call__(self, *given: Any, **named: Any) -> Any:
        with torch.no_grad():
            return super().__call__(*given, **named)


def test_a_layer_that_the_forward_pass_does_not_read_is_named() -> None:
    pipeline: Any = tiny_pipeline(context_length=24)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2"
    module = pipeline.unet.get_submodule(layer)
    other = nn.Linear(32, module.to_k.out_features, bias=False)
    module.set_processor(ReadsElsewhere(other))
    names = list(projection_weights(pipeline.unet))
    assert unread(pipeline.unet, names) == [f"{layer}.to_k.weight"]
    with pytest.raises(ValueError, match=rf"such as {layer}.to_k.weight.*ReadsElsewhere: call"):
        erase(pipeline, "cat", kind="object", progress=False)
    module.set_processor(AttnProcessor2_0())
    assert unread(pipeline.unet, names) == []


@pytest.mark.parametrize(
    ("build", "dtype"),
    [(tiny_pipeline, torch.float16), (tiny_xl_pipeline, torch.bfloat16)],
    ids=["16-bit", "bfloat16, XL"],
)
def test_every_layer_of_every_family_is_read(build: Callable[..., Any], dtype: Any) -> None:
    pipeline = build(context_length=24).to(dtype)
    check_pipeline(pipeline)
    check_read(pipeline, [f"unet.{name}" for name in projection_weights(pipeline.unet)])


def test_what_autograd_cannot_follow_is_tried() -> None:
    pipeline: Any = tiny_pipeline(context_length=24)
    pipeline.unet.set_attn_processor(WithoutGradient())
    assert unread(pipeline.unet, list(projection_weights(pipeline.unet))) == []
