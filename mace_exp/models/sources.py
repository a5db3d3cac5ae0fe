"""Locate a model and check what can be checked without loading it; no heavy import."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.utils.trusted import check_no_code

EMBEDDED = "mini"
FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # remote code is not run
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WITH_WEIGHTS = ("text_encoder", "text_encoder_2", "unet", "vae")


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """A folder, a checkpoint file with the folder of its configuration, or a hub id."""

    folder: Path | None = None
    file: Path | None = None
    hub_id: str | None = None


def find_model(
    source: str | Path | None,
    *,
    file_config: str | Path | None = None,
    allow_download: bool = False,
) -> ModelLocation:
    """Return the location of `source`, checked as far as possible without loading it.

    `source` is "mini" or None (the embedded model), a diffusers folder, a `.safetensors` checkpoint
    (then `file_config` is the diffusers folder that describes it), or a hub id.

    Raises:
        ValueError: no such model, a folder that is not a pipeline or lacks a component.
    """
    if source in (None, EMBEDDED):
        return ModelLocation(folder=_checked_folder(Path(__file__).parents[1] / "mini" / "weights"))
    path = Path(source).expanduser()
    if path.is_file():
        return _checked_file(path, file_config)
    if path.is_dir():
        return ModelLocation(folder=_checked_folder(path))
    if not HUB_ID.fullmatch(str(source)):
        raise ValueError(f"model source {str(source)!r} does not exist: {_EXPECTED}")
    if not (allow_download or in_hub_cache(str(source), "model_index.json")):
        raise ValueError(
            f"model source {str(source)!r} is not a local folder and not in the hub's local cache, "
            f"and downloads are off: {_EXPECTED}"
        )
    return ModelLocation(hub_id=str(source))


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
    try:
        config = json.loads((location.folder / part / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _checked_folder(folder: Path) -> Path:
    index = _checked_family(folder)
    check_no_code(folder)
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or None in value:
            continue
        if value[0] not in LIBRARIES:
            raise ValueError(f"{folder} takes {name} from {value[0]!r}: remote code is not run")
        if name not in OPTIONAL and not (folder / name).is_dir():
            raise ValueError(f"{folder} is not a complete pipeline: its folder {name!r} is missing")
        if name in WITH_WEIGHTS and not any((folder / name).glob("*.safetensors")):
            raise ValueError(f"{folder / name} has no .safetensors weights")
    return folder


def _checked_family(folder: Path) -> dict[str, Any]:
    index = read_index(folder)
    family = index.get("_class_name")
    if family not in FAMILIES:
        raise ValueError(f"{folder} holds {family!r}; supported are {', '.join(FAMILIES)}")
    return index


def read_index(folder: Path | None) -> dict[str, Any]:
    """Return model_index.json of a folder ({} for None). Raises ValueError if it is missing."""
    if folder is None:
        return {}
    file = folder / "model_index.json"
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a diffusers pipeline: {file.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder} is not a diffusers pipeline: {file.name}: {error}") from None
    return index if isinstance(index, dict) else {}


def _checked_file(path: Path, config: str | Path | None) -> ModelLocation:
    if path.suffix != ".safetensors":
        raise ValueError(f"model file {path}: only .safetensors is read, not {path.suffix!r}")
    if config is None:
        raise ValueError(
            f"model file {path} has no configuration: set file_config to a local diffusers folder "
            "of the same model family (its weights are not needed)"
        )
    folder = Path(config).expanduser()
    _checked_family(folder)
    return ModelLocation(file=path, folder=folder)


def in_hub_cache(hub_id: str, file: str) -> bool:
    """Return whether a file of a model is in the hub's local cache, and so, usually, the model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, file), str)
