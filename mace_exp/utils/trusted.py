"""Where weights and code of a model may come from: safetensors, and the installed packages.

All that loads a model with the libraries' `from_pretrained` passes these options, after the folder
was checked: a pickle runs what is in it, and so does remote code. (A published cache, which is a
pickle, is read with `weights_only`, in preservation/published.py.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WEIGHTS: Mapping[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
"""Options of `from_pretrained` of models and pipelines."""
WORDS: Mapping[str, Any] = {"trust_remote_code": False}
"""Options of `from_pretrained` of tokenizers and processors, which have no weights."""
_DESCRIPTIONS = (
    *("config.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "generation_config.json", "image_processor_config.json"),
)
_ADAPTER = "adapter_config.json"


def check_no_code(folder: Path) -> None:
    """Refuse a folder of a model, or of a pipeline with its components, that asks for more.

    Raises:
        ValueError: remote code (`auto_map` in a description), or an adapter, whose base would be
            loaded from where it says.
    """
    for place in (folder, *(each for each in sorted(folder.iterdir()) if each.is_dir())):
        if (place / _ADAPTER).exists():
            raise ValueError(f"{place} holds an adapter ({_ADAPTER}): give the folder of a model")
        for name in _DESCRIPTIONS:
            if "auto_map" in _description(place / name):
                raise ValueError(
                    f"{place} requires remote code ({name}: auto_map), which is not run"
                )


def _description(file: Path) -> Mapping[str, Any]:
    """Return the values of a description; {} where it can't be read, which its reader says."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
