"""What every method assumes about a model, checked by its configuration in files or in memory.

Each check raises ValueError, with a message that says what was found and what to do. No heavy
import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
DENOISER = "UNet2DConditionModel"
TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
WITHOUT_BETAS = ("EDM", "FlowMatch", "FlowMap", "KarrasVe", "ScoreSde", "CMStochastic")
"""Name prefixes of diffusers' schedulers whose noise schedule is not given by betas."""
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
    """Check that the noise schedule is given by betas, and the prediction type is supported."""
    named = all(config.get(key) is not None for key in ("beta_start", "beta_end", "beta_schedule"))
    has_betas = named or config.get("trained_betas") is not None
    flows = config.get("use_flow_sigmas") or scheduler.startswith(WITHOUT_BETAS)
    if flows or not has_betas:
        raise ValueError(
            f"{where} is a {scheduler or 'scheduler'}, whose noise is not given by betas (EDM, "
            "flow matching): LoRAs are trained, and pictures drawn, on a DDPM noise schedule. Take "
            "a model that was trained on one, such as Stable Diffusion 1.x, 2.x or XL base"
        )
    prediction = config.get("prediction_type", PREDICTIONS[0])
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"{where}: prediction_type is {prediction!r}; supported are {', '.join(PREDICTIONS)}"
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
    added = unet.get("encoder_hid_dim_type")
    if added is not None:
        raise ValueError(
            f"{where} reads more than text (encoder_hid_dim_type = {added}, as with an "
            "IP-adapter), which an edit of text would not reach: call pipe.unload_ip_adapter(), "
            "and save the model again if it comes from files"
        )


def check_widths(
    unet: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]], where: str
) -> None:
    """Check that the UNet's cross-attention width is the sum of the text encoders' widths."""
    wanted = unet.get("cross_attention_dim")
    widths = [each.get("hidden_size") for each in encoders]
    given = [each for each in widths if isinstance(each, int)]
    if isinstance(wanted, int) and len(given) == len(widths) and sum(given) != wanted:
        raise ValueError(
            f"{where}: its UNet reads text states {wanted} wide, its text encoders give "
            f"{' + '.join(map(str, given))}: parts of different models were put together"
        )
