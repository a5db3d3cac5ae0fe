"""Find the transformers models that help a run (detectors, language models), and tell them apart.

All that can be checked without loading one is checked here: no heavy import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mace_exp.models.sources import HUB_ID, in_hub_cache


def check_auxiliary(
    source: str, *, model_type: str | None = None, hub: bool = True, allow_download: bool = False
) -> None:
    """Make sure that `source`, a folder or (where `hub` allows it) a hub id, can be loaded.

    `model_type` is what the folder's config.json must say, as in "sam".

    Raises:
        ValueError: the message goes on where "<key> = <source>" ends. Neither a folder nor a hub
            id; a folder that lacks a file, wants code of its own to be run or holds another kind of
            model; a hub id that is not here and may not be fetched.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        _check_folder(path, model_type)
    elif not hub:
        raise ValueError("is no folder: name that of a transformers model")
    elif not HUB_ID.fullmatch(source):
        raise ValueError("is neither a folder nor a hub id, as in facebook/sam-vit-base")
    elif not (allow_download or in_hub_cache(source, "config.json")):
        raise ValueError(
            "is no folder and not in the hub's local cache, and downloads are off: "
            "name a folder, or set allow_download=true beside it"
        )


def auxiliary_identity(source: str) -> str | list[tuple[str, int, int]]:
    """Return what tells a model apart in cache keys: a hub id, or a folder's files.

    A file counts by name, size and time: to read gigabytes would take longer than a stage.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return source
    files = sorted(file for file in path.iterdir() if file.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def local_path(source: str) -> str:
    """Return a folder with `~` written out, and a hub id as it is."""
    path = Path(source).expanduser()
    return str(path) if path.is_dir() else source


def _check_folder(folder: Path, model_type: str | None) -> None:
    config = _config(folder)
    found = config.get("model_type")
    if model_type is not None and found != model_type:
        raise ValueError(f"holds a model of the type {found!r}, not {model_type!r}")
    if "auto_map" in config:
        raise ValueError("wants code of its own to be run: only models of transformers itself are")
    if not any(folder.glob("*.safetensors")):
        raise ValueError("has no .safetensors weights")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError("is no transformers model: config.json is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"is no transformers model: config.json: {error}") from None
    return config if isinstance(config, dict) else {}
