"""Trusted sources: weights come from safetensors files, code from the installed packages.

Every call of a library's `from_pretrained` passes these options, after the folder is checked,
because loading a pickle or remote code can run any program. (A published cache, which is a pickle,
is read with `weights_only`, in preservation/published.py.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mace_exp.utils.reading import read_record

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
    """Refuse a folder of a model or a pipeline that would load code or weights from elsewhere.

    Raises:
        ValueError: the folder requires remote code (`auto_map` in a configuration file), or is an
            adapter, which names the source of its base model.
    """
    for place in (folder, *(each for each in sorted(folder.iterdir()) if each.is_dir())):
        if (place / _ADAPTER).exists():
            raise ValueError(f"{place} holds an adapter ({_ADAPTER}): give the folder of a model")
        for name in _DESCRIPTIONS:
            if "auto_map" in read_record(place / name):
                raise ValueError(
                    f"{place} requires remote code ({name}: auto_map), which is not run"
                )
