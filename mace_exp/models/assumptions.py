"""What every method assumes about a model, checked by its configuration in files or in memory.

Each check raises ValueError, with a message that says what was found and what to do. No heavy
import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
DENOISER = "UNet2DConditionModel"
AUTOENCODER = "AutoencoderKL"
TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
PREDICTIONS = ("epsilon", "v_prediction")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""Names of noise schedules that all samplers know."""
WITHOUT_BETAS = (
    *("EDM", "FlowMatch", "FlowMap", "KarrasVe", "ScoreSde", "CMStochastic", "CosineDPM", "SCM"),
    *("DDPMWuerstchen", "CogVideoX", "VQDiffusion", "Amused", "IPNDM"),
)
"""Name prefixes of diffusers' schedulers whose noise schedule is not given by betas alone."""
_WITH_AN_IMAGE = ("Img2Img", "Inpaint", "Depth2Img", "Upscale", "InstructPix2Pix", "ImageVariation")
_BESIDE_THE_MODEL = ("ControlNet", "Adapter", "PAG", "AnimateDiff", "GLIGEN", "Panorama", "Safe")


def check_family(name: str, where: object) -> None:
    """Check that a pipeline's class is a supported text-to-image family."""
    if name in FAMILIES:
        return
    supported = ", ".join(FAMILIES)
    if any(part in name for part in _WITH_AN_IMAGE):
        raise ValueError(
            f"{where} is a {name}, which reads an image beside the text; supported are "
            f"{supported}: take the text-to-image model that it was made of or, if its UNet is the "
            f"same, {FAMILIES['XL' in name]}.from_pipe(pipe)"
        )
    if any(part in name for part in _BESIDE_THE_MODEL) and name.startswith("StableDiffusion"):
        raise ValueError(
            f"{where} is a {name}; supported are {supported}: erase from "
            f"{FAMILIES['XL' in name]}.from_pipe(pipe), whose UNet is the same object"
        )
    raise ValueError(
        f"{where} holds {name!r}; supported are {supported}: the methods edit the cross-attention "
        "of a UNet that reads CLIP's text states, which other families have not"
    )


def check_schedule(scheduler: str, config: Mapping[str, Any], where: object) -> None:
    """Check that the noise schedule is given by betas that all samplers know, and that the model
    predicts noise or v: two samplers draw from nothing else, and from noise alone nothing can be
    drawn where the last timestep is all noise."""
    named = all(config.get(key) is not None for key in ("beta_start", "beta_end", "beta_schedule"))
    has_betas = named or config.get("trained_betas") is not None
    flows = config.get("use_flow_sigmas") or scheduler.startswith(WITHOUT_BETAS)
    if flows or not has_betas:
        raise ValueError(
            f"{where} is a {scheduler or 'scheduler'}, whose noise is not given by betas (EDM, "
            "flow matching): LoRAs are trained, and pictures drawn, on a DDPM noise schedule. Take "
            "a model that was trained on one, such as Stable Diffusion 1.x, 2.x or XL base"
        )
    _check_numbers(config, where)
    prediction = config.get("prediction_type", PREDICTIONS[0])
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"{where}: prediction_type is {prediction!r}; supported are {', '.join(PREDICTIONS)}"
        )
    if config.get("trained_betas") is None and config["beta_schedule"] not in BETAS:
        raise ValueError(
            f"{where}: beta_schedule is {config['beta_schedule']!r}; supported are "
            f"{', '.join(BETAS)}, or a list of trained_betas"
        )
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise ValueError(
            f"{where}: rescale_betas_zero_snr with prediction_type 'epsilon': the last timestep is "
            "all noise, and predicted noise tells nothing of the picture. Models of zero terminal "
            "SNR predict v: set prediction_type to 'v_prediction' if this one does, else "
            "rescale_betas_zero_snr to false"
        )


def _check_numbers(config: Mapping[str, Any], where: object) -> None:
    """Check the number of timesteps, and that noise is added in each."""
    count, given = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    betas = given if given is not None else [config["beta_start"], config["beta_end"]]
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"{where}: num_train_timesteps is {count!r}: give a whole number, as 1000")
    if not all(isinstance(each, int | float) and 0 < each < 1 for each in betas):
        raise ValueError(f"{where}: the betas of its noise, {betas}, are not between 0 and 1")
    if given is not None and len(given) != count:
        raise ValueError(
            f"{where}: trained_betas has {len(given)} values, num_train_timesteps is {count}: one "
            "for each timestep is needed"
        )


def check_autoencoder(kind: str, where: object) -> None:
    """Check that the autoencoder gives a distribution of latents, whose mode is trained on."""
    if kind != AUTOENCODER:
        raise ValueError(
            f"{where} is a {kind}; supported is {AUTOENCODER}: put the model's own autoencoder "
            "back into pipe.vae, from the model's folder vae"
        )


def check_denoiser(unet: Mapping[str, Any], vae: Mapping[str, Any], where: object) -> None:
    """Check that the UNet reads only noisy latents and text states."""
    kind = unet.get("_class_name", DENOISER)
    if kind != DENOISER:
        raise ValueError(f"{where} is a {kind}; supported is {DENOISER}")
    reads, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if reads != latent:
        kinds = {9: "inpainting", 8: "editing by instructions", 5: "depth", 7: "upscaling"}
        purpose = f", as a model for {kinds[reads]}" if reads in kinds else ""
        raise ValueError(
            f"{where} reads {reads} channels{purpose}; text-to-image needs the {latent} of the "
            "latents: take the text-to-image model that it was made of"
        )
    predicts = unet.get("out_channels", 4)
    if predicts != latent:
        raise ValueError(
            f"{where} predicts {predicts} channels, of which the {latent} of the latents are noise "
            "or v: a model that also predicts its variance is not supported"
        )
    _check_inputs(unet, where)
    added = unet.get("encoder_hid_dim_type")
    if added is not None:
        raise ValueError(
            f"{where} reads more than text (encoder_hid_dim_type = {added}, as with an "
            "IP-adapter), which an edit of text would not reach: call pipe.unload_ip_adapter(), "
            "and save the model again if it comes from files"
        )


_PLAIN = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "addition_embed_type": (None, "text_time"),
    "attention_type": (None, "default"),
    "time_cond_proj_dim": (None,),
    "encoder_hid_dim": (None,),
    "dual_cross_attention": (None, False),
    "only_cross_attention": (None, False),
    "mid_block_only_cross_attention": (None, False),
}
"""Keys of a UNet by which it reads more than latents, timesteps and text, and what they may be."""


def _check_inputs(unet: Mapping[str, Any], where: object) -> None:
    """Refuse a UNet that reads class labels, boxes or a guidance scale, or text in other layers
    than the cross-attention of transformer blocks."""
    for key, allowed in _PLAIN.items():
        value = unet.get(key)
        each_block = value if isinstance(value, list | tuple) else [value]
        if any(each not in allowed for each in each_block):
            raise ValueError(
                f"{where}: {key} = {value}: it reads more than noisy latents, timesteps and text "
                "(class labels, boxes, or the guidance of a consistency model), or text in other "
                "layers. Take the text-to-image model that it was made of"
            )
    keys = ("down_block_types", "up_block_types")
    blocks = [unet.get("mid_block_type"), *(each for key in keys for each in unet.get(key, ()))]
    other = next((each for each in blocks if re.search("SimpleCross|KCross", str(each))), None)
    if other is not None:
        raise ValueError(
            f"{where} has blocks of the type {other}, whose attention reads text and image "
            "together (DeepFloyd IF, Kandinsky): the methods edit cross-attention alone"
        )


def check_widths(
    unet: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]], where: str
) -> None:
    """Check that the UNet's cross-attention width is the sum of the text encoders' widths."""
    wanted = unet.get("cross_attention_dim")
    if isinstance(wanted, list):
        if len({str(each) for each in wanted}) > 1:
            raise ValueError(
                f"{where}: its UNet reads text states of several widths, {wanted}: one transform "
                "of them has to fit all layers"
            )
        wanted = wanted[0] if wanted else None
    widths = [each.get("hidden_size") for each in encoders]
    given = [each for each in widths if isinstance(each, int)]
    if isinstance(wanted, int) and len(given) == len(widths) and sum(given) != wanted:
        raise ValueError(
            f"{where}: its UNet reads text states {wanted} wide, its text encoders give "
            f"{' + '.join(map(str, given))}: parts of different models were put together"
        )
