"""What takes more than another name: the model, masks, prompts, weights and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mace_exp.convert.concepts import convert_concepts
from mace_exp.convert.experiment import Experiment
from mace_exp.convert.values import number, rounded, switch

MODELS = {
    "CompVis/stable-diffusion-v1-4": "sd_v1_4",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd_v1_5",
    "runwayml/stable-diffusion-v1-5": "sd_v1_5",
    "stabilityai/stable-diffusion-2-1-base": "sd_v2_1_base",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}


def _model(made: Experiment, theirs: Mapping[str, Any]) -> None:
    source = theirs.get("pretrained_model_name_or_path") or "CompVis/stable-diffusion-v1-4"
    made.options["model"] = MODELS.get(str(source), "path")
    if made.options["model"] == "path":
        made.values["model.source"] = str(source)
        made.values["model.allow_download"] = True


def _masks(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("use_gsam_mask") is None:
        return
    wanted = switch(theirs, "use_gsam_mask")
    made.options["masks"] = "grounded_sam" if wanted else "none"
    if wanted:
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
        made.values["prompts.count"] = number(given, next(iter(given)), int)
    if len(set(given.values())) > 1:
        made.remarks.append(f"aug_length = {given['aug_length']}: prompt_len sets the only number")


def _weights(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Closeness and preservation: in refinement the published code scales its caches twice."""
    if theirs.get("lamb") is not None:
        closeness = number(theirs, "lamb", float)
        made.values |= {"cfr.closeness": closeness, "fusion.closeness": closeness}
    train = number({"train_preserve_scale": 0} | dict(theirs), "train_preserve_scale", float)
    fuse = number({"fuse_preserve_scale": 0} | dict(theirs), "fuse_preserve_scale", float)
    ratio = number({"preserve_weight": 0} | dict(theirs), "preserve_weight", float)
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


def _kept(kind: str, by_domain: bool) -> str:
    """Return the option of `kept` whose names a run of this kind preserves and measures."""
    if kind == "style":
        return "artist_100"
    return "celebrity_100" if kind == "person" or by_domain else "object_10"


def _size(made: Experiment, theirs: Mapping[str, Any]) -> None:
    if theirs.get("resolution") is not None:
        pixels = number(theirs, "resolution", int)
        made.values |= {"sampling.height": pixels, "sampling.width": pixels}


PARTS = (
    (_model, ("pretrained_model_name_or_path",)),
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
)
"""What takes more than another name, in the order of the file, each with the keys that it reads."""
