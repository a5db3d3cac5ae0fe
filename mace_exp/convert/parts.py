"""What takes more than another name: the model, masks, prompts, weights, sizes and the like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mace_exp.concepts.concept import UNMASKED, Kind
from mace_exp.concepts.prompts import TRAINING_TEMPLATES
from mace_exp.convert.concepts import convert_concepts
from mace_exp.convert.experiment import Experiment
from mace_exp.convert.values import number, rounded, switch, texts

MODELS = {
    "CompVis/stable-diffusion-v1-4": "sd_v1_4",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd_v1_5",
    "runwayml/stable-diffusion-v1-5": "sd_v1_5",
    "stabilityai/stable-diffusion-2-1-base": "sd_v2_1_base",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}
PRECISIONS = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def _model(made: Experiment, theirs: Mapping[str, Any]) -> None:
    source = theirs.get("pretrained_model_name_or_path") or "CompVis/stable-diffusion-v1-4"
    made.options["model"] = MODELS.get(str(source), "path")
    if _text(theirs, "variant"):
        made.values["model.variant"] = _text(theirs, "variant")
    if made.options["model"] == "path":
        made.values["model.source"] = str(source)
        made.values["model.allow_download"] = True


def _masks(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("use_gsam_mask") is None:
        return
    kinds = [made.values["concepts.kind"], *made.values.get("concepts.kinds", {}).values()]
    masked = not all(Kind[kind] in UNMASKED for kind in kinds)
    wanted = switch(theirs, "use_gsam_mask")
    made.options["masks"] = "grounded_sam" if wanted and masked else "none"
    if wanted and not masked:
        made.remarks.append(
            "use_gsam_mask = True: styles and explicit words are trained on whole images"
        )
    elif wanted:
        made.values["masks.allow_download"] = True
        made.remarks.append(
            "use_gsam_mask = True: Grounding DINO and SAM are fetched from the hub; folders of "
            "both by masks.detector=... masks.segmenter=..., no other model by masks=attention"
        )


def _prompts(made: Experiment, theirs: Mapping[str, Any]) -> None:
    given = {
        key: theirs[key] for key in ("prompt_len", "aug_length") if theirs.get(key) is not None
    }
    if given:
        key, most = next(iter(given)), len(TRAINING_TEMPLATES)
        count = number(given, key, int)
        made.values["prompts.count"] = min(count, most)
        if count > most:
            made.remarks.append(f"{key} = {count}: {most} here, as many as there are templates")
    if len(given) > 1 and given["aug_length"] != given["prompt_len"]:
        made.remarks.append(f"aug_length = {given['aug_length']}: prompt_len sets the only number")


def _weights(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Closeness and preservation: in refinement the published code scales its caches twice."""
    if theirs.get("lamb") is not None:
        closeness = number(theirs, "lamb", float)
        made.values |= {"cfr.closeness": closeness, "fusion.closeness": closeness}
    scales = ("train_preserve_scale", "fuse_preserve_scale", "preserve_weight")
    train, fuse, ratio = (_number_or(theirs, key, 0) for key in scales)
    prior = theirs.get("prior_preservation_cache_path", True) not in (None, False, "")
    domain = theirs.get("domain_preservation_cache_path", True) not in (None, False, "")
    for group, scale in (("cfr", train**2), ("fusion", fuse)):
        made.values[f"{group}.prior_weight"] = rounded(scale * prior)
        made.values[f"{group}.domain_weight"] = rounded(scale * ratio * domain)
    weighed = {key: made.values[key] for key in made.values if key.endswith("_weight")}
    by_domain = any(value for key, value in weighed.items() if "domain" in key)
    made.options["kept"] = _kept(made.values["concepts.kind"], by_domain)
    made.options["preservation"] = "published" if any(weighed.values()) else "none"
    if any(weighed.values()):
        made.remarks.append(
            "preservation caches: captions of our own stand for them; imported by python -m "
            "mace_exp.preservation import they are taken by preservation=cached "
            "preservation.prior.cache=... preservation.domain.cache=..."
        )


def _number_or(theirs: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number, or the default where there is none, or null."""
    return default if theirs.get(key) is None else number(theirs, key, float)


def _kept(kind: str, by_domain: bool) -> str:
    """Return the option of `kept` whose names a run of this kind preserves and measures."""
    if kind == "style":
        return "artist_100"
    return "celebrity_100" if kind == "person" or by_domain else "object_10"


def _size(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("resolution") is not None:
        pixels = number(theirs, "resolution", int)
        made.values |= {"sampling.height": pixels, "sampling.width": pixels}


def _images(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Training images are drawn here: true needs no word."""
    if theirs.get("generate_data") is False:
        made.remarks.append(
            "generate_data = False: a run draws its training images, once; images of your own by "
            "images=folder images.path=..."
        )


def _prior_images(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Class images of one folder under one prompt; without these two there is nothing to give."""
    on = theirs.get("with_prior_preservation")
    if on is None or not switch(theirs, "with_prior_preservation"):
        return
    folder = _text(theirs, "class_data_dir")
    prompt = _text(theirs, "preserve_prompt") or _text(theirs, "class_prompt")
    weight = _number_or(theirs, "prior_loss_weight", 1)
    if not (folder and prompt and weight):
        missing = [
            name
            for name, given in (
                ("class_data_dir names a folder", folder),
                ("preserve_prompt or class_prompt says what it shows", prompt),
                ("prior_loss_weight is above 0", weight),
            )
            if not given
        ]
        made.remarks.append(
            f"with_prior_preservation = True: not converted unless {' and '.join(missing)}; "
            "prior_images=folder prior_images.path=... prior_images.prompt=... takes class images"
        )
        return
    made.options["prior_images"] = "folder"
    made.values |= {"prior_images.path": folder, "prior_images.prompt": prompt}
    made.values["prior_images.weight"] = weight


def _text(theirs: Mapping[str, Any], key: str) -> str:
    """Return a text, also out of a list of one; empty where there is none, or are several."""
    found = list(texts(theirs.get(key) or [], key))
    return found[0] if len(found) == 1 else ""


def _precision(made: Experiment, theirs: Mapping[str, Any]) -> None:
    given = theirs.get("mixed_precision")
    if given is None:
        return
    named = "no" if given is False else str(given)  # YAML reads a bare no as false
    if named in PRECISIONS:
        made.values["model.dtype"] = PRECISIONS[named]
    else:
        made.remarks.append(
            f"mixed_precision = {given}: model.dtype takes {', '.join(PRECISIONS.values())}"
        )


def _tracking(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Whoever reported elsewhere, or nowhere, did not ask for Weights & Biases."""
    given = theirs.get("report_to")
    if given is None:
        return
    services = list(texts([] if given is False else given, "report_to"))
    wanted = bool({"wandb", "all"} & set(services))
    made.options["tracking"] = "wandb" if wanted else "none"
    if wanted and _text(theirs, "tracker_project_name"):
        made.values["tracking.project"] = _text(theirs, "tracker_project_name")
    others = [each for each in services if each not in ("wandb", "none", "all")]
    if others:
        made.remarks.append(
            f"report_to = {', '.join(others)}: a run keeps its own record; tracking=wandb shows it"
        )


PARTS = (
    (_model, ("pretrained_model_name_or_path", "variant")),
    (convert_concepts, ("multi_concept", "mapping_concept")),
    (_masks, ("use_gsam_mask",)),
    (_prompts, ("prompt_len", "aug_length")),
    (
        _weights,
        (
            *("lamb", "train_preserve_scale", "fuse_preserve_scale", "preserve_weight"),
            *("prior_preservation_cache_path", "domain_preservation_cache_path"),
        ),
    ),
    (_size, ("resolution",)),
    (_images, ("generate_data",)),
    (
        _prior_images,
        (
            *("with_prior_preservation", "prior_loss_weight", "preserve_prompt"),
            *("class_data_dir", "class_prompt"),
        ),
    ),
    (_precision, ("mixed_precision",)),
    (_tracking, ("report_to", "tracker_project_name")),
)
"""What takes more than another name, in the order of the file, each with the keys that it reads."""
