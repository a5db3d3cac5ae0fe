"""Which LoRAs are trained in one batch.

The last digits of a LoRA depend on those that it shares forward passes with. So each cache entry
names the entries of its batch, and a LoRA that is lost is trained in its batch again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mace_exp.methods.mace.schema import LoraConfig
from mace_exp.utils.reading import read_record

ON_CPU = 8
"""LoRAs per forward pass on a CPU with `lora.concepts_per_batch=auto`: more do not save time."""
FILE = "batch.json"
_KEY = "entries"


def most_at_once(settings: LoraConfig, *, on_cpu: bool) -> int | None:
    """Return how many LoRAs may share a forward pass; None: all that have equal settings."""
    if isinstance(settings.concepts_per_batch, int):
        return settings.concepts_per_batch
    return ON_CPU if on_cpu else None


def save_batch(folder: Path, entries: Sequence[str]) -> None:
    """Write the names of the entries of a batch, in its order, into the folder of one of them."""
    (folder / FILE).write_text(json.dumps({_KEY: list(entries)}), encoding="utf-8")


def units(
    entries: Mapping[str, Path],
    missing: Collection[str],
    settings: Mapping[str, LoraConfig],
    *,
    on_cpu: bool,
) -> list[list[str]]:
    """Return the LoRAs to train: each batch of which some are missing, then the others one by one.

    `entries` and `settings` are those of all LoRAs that a run needs. A batch that is now too large,
    or has others, for which the run has no data, is not trained again as a whole.
    """
    slugs = {path.name: slug for slug, path in entries.items()}
    found: dict[str, list[str]] = {}
    for slug, path in entries.items():
        batch = [] if slug in missing else [slugs.get(name, "") for name in _recorded(path)]
        known = "" not in batch and found.keys().isdisjoint(batch)
        if known and any(each in missing for each in batch):
            most = most_at_once(settings[slug], on_cpu=on_cpu)
            if most is None or len(batch) <= most:
                found |= dict.fromkeys(batch, batch)
    again = [batch for slug, batch in found.items() if slug == batch[0]]
    return again + [[slug] for slug in missing if slug not in found]


def _recorded(entry: Path) -> list[str]:
    """Return the batch that an entry names; only itself for one of an earlier version."""
    named = read_record(entry / FILE).get(_KEY)
    return [str(each) for each in named] if isinstance(named, list) else [entry.name]
