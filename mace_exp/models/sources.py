"""Locate a model and check what can be checked without loading it; no heavy import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.models.addresses import HUB_ID, corrected
from mace_exp.models.checkpoints import check_checkpoint, check_description
from mace_exp.models.model_folders import check_folder
from mace_exp.models.schema import ModelConfig
from mace_exp.utils.reading import read_record

EMBEDDED = "mini"


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """A folder, a checkpoint file with the folder of its configuration, or a hub id."""

    folder: Path | None = None
    file: Path | None = None
    hub_id: str | None = None


def find_model(
    source: str | Path | None,
    *,
    variant: str | None = None,
    file_config: str | Path | None = None,
    allow_download: bool = False,
    safety_checker: bool = True,
) -> ModelLocation:
    """Return the location of `source`, checked as far as its files tell without loading it.

    `source` is "mini" or None (the embedded model), a diffusers folder, a `.safetensors` checkpoint
    (then `file_config` is the diffusers folder that describes it), or a hub id. `variant` and
    `safety_checker` say which files of it are read.

    Raises:
        ValueError: no such model, or one that is not whole, or not a text-to-image model of a
            family that is supported.
    """
    if source in (None, EMBEDDED):
        weights = Path(__file__).parents[1] / "mini" / "weights"
        check_folder(weights)
        return ModelLocation(folder=weights)
    path = Path(source).expanduser()
    if path.is_file():
        return _checked_file(path, file_config)
    if path.is_dir():
        check_folder(path, variant=variant, safety_checker=safety_checker)
        return ModelLocation(folder=path)
    if not HUB_ID.fullmatch(str(source)):
        meant = corrected(str(source)) or f"does not exist: {_EXPECTED}"
        raise ValueError(f"model source {str(source)!r} {meant}")
    cached = hub_cached(str(source), "model_index.json")
    if cached is None and not allow_download:
        raise ValueError(
            f"model source {str(source)!r} is not a local folder and not in the hub's local cache, "
            f"and downloads are off: {_EXPECTED}"
        )
    if cached is not None and not allow_download:  # else the rest is downloaded
        check_folder(cached.parent, variant=variant, safety_checker=safety_checker)
    return ModelLocation(hub_id=str(source))


def location_of(model: ModelConfig) -> ModelLocation:
    """Return the location of a configured model. Raises ValueError as `find_model`."""
    return find_model(
        model.source,
        variant=model.variant,
        file_config=model.file_config,
        allow_download=model.allow_download,
        safety_checker=model.safety_checker,
    )


_EXPECTED = (
    "give 'mini', a diffusers folder, a .safetensors checkpoint, or a hub id with "
    "model.allow_download=true"
)


def native_size(location: ModelLocation) -> tuple[int, int] | None:
    """Return the model's native (height, width) in pixels, from its configuration files.

    None where they are not available, or not decisive: diffusers overrides a sample size below 64
    in a configuration written before version 0.9.0.
    """
    unet, vae = _part_config(location, "unet"), _part_config(location, "vae")
    side, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    if not side or not blocks:
        return None
    height, width = (side, side) if isinstance(side, int) else side
    if height < 64 and re.match(r"0\.[0-8]\.", unet.get("_diffusers_version", "")):
        return None
    factor = 2 ** (len(blocks) - 1)
    return height * factor, width * factor


def _part_config(location: ModelLocation, part: str) -> dict[str, Any]:
    """Return config.json of a component ({} if it can't be read)."""
    if location.folder is None:
        return {}
    return read_record(location.folder / part / "config.json")


def _checked_file(path: Path, config: str | Path | None) -> ModelLocation:
    if path.name == "model_index.json":
        raise ValueError(f"model file {path} is one of a pipeline: give its folder, {path.parent}")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"model file {path}: only .safetensors is read, not {path.suffix!r} (.ckpt, .pt and "
            ".bin files are pickles, which can run any code): convert it by a program that you "
            "trust"
        )
    check_checkpoint(path)
    if config is None:
        raise ValueError(
            f"model file {path} has no configuration: set file_config to a local diffusers folder "
            "of the same model family (its weights are not needed)"
        )
    folder = Path(config).expanduser()
    check_folder(folder, weights=False)
    check_description(path, folder)
    return ModelLocation(file=path, folder=folder)


def hub_cached(hub_id: str, file: str) -> Path | None:
    """Return a model's file in the hub's local cache, or None: if one is there, usually all are."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, file)
    return Path(found) if isinstance(found, str) else None
