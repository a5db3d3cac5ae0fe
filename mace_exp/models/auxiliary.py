"""Locate auxiliary transformers models (detectors, language models) and identify them.

Everything that can be checked without loading a model is checked here; no heavy import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mace_exp.models.addresses import HUB_ID, corrected
from mace_exp.models.sources import hub_cached
from mace_exp.utils.reading import regular
from mace_exp.utils.trusted import check_no_code


def check_auxiliary(
    source: str, *, model_type: str | None = None, hub: bool = True, allow_download: bool = False
) -> None:
    """Check that `source`, a folder or (with `hub`) a hub id, can be loaded.

    `model_type` is the required value in the folder's config.json, such as "sam".

    Raises:
        ValueError: the message continues a sentence that begins with "<key> = <source>". Neither a
            folder nor a hub id; a folder that lacks a file, requires remote code or holds another
            type of model; a hub id that is not cached while downloads are off.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        _check_folder(path, model_type)
    elif not hub:
        raise ValueError("is not a folder: name the folder of a transformers model")
    elif not HUB_ID.fullmatch(source):
        other = "is neither a folder nor a hub id, as in facebook/sam-vit-base"
        raise ValueError(corrected(source) or other)
    elif not (allow_download or hub_cached(source, "config.json")):
        raise ValueError(
            "is not a folder and not in the hub's local cache, and downloads are off: "
            "name a folder, or set allow_download=true next to it"
        )


def auxiliary_identity(source: str) -> str | list[tuple[str, int, int]]:
    """Return the identity of a model in cache keys: a hub id, or a folder's files.

    Files are identified by name, size and modification time: hashing gigabytes would take longer
    than a stage.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return source
    files = sorted(file for file in path.iterdir() if file.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def local_path(source: str) -> str:
    """Return a folder with `~` expanded; a hub id unchanged."""
    path = Path(source).expanduser()
    return str(path) if path.is_dir() else source


def _check_folder(folder: Path, model_type: str | None) -> None:
    config = _config(folder)
    found = config.get("model_type")
    if model_type is not None and found != model_type:
        raise ValueError(f"holds a model of the type {found!r}, not {model_type!r}")
    check_no_code(folder)
    if not any(folder.glob("*.safetensors")):
        raise ValueError("has no .safetensors weights")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(regular(folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError("is not a transformers model: config.json is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"is not a transformers model: config.json: {error}") from None
    return config if isinstance(config, dict) else {}
