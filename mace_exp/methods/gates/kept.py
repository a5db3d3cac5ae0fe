"""Gates of an earlier run, which a revised run reuses without fitting them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mace_exp.methods.gates.neurons import Neurons
from mace_exp.methods.gates.states import Prefix
from mace_exp.models.model import Model
from mace_exp.models.text import TEXT_ENCODERS
from mace_exp.runs.edits import edit_facts
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.stale import recorded_keys
from mace_exp.utils.tensors import load_tensors

Unit = tuple[str, Prefix]
"""What a gate opens for: ("", prefix) for the last token of a prefix of a name, or (slug, `AFTER`)
for the positions after the name of this concept."""
Mismatch = tuple[float, float]
"""How far cross-attention is from what it gives for the anchor, before and after `compensation`."""
FILE = "gates.safetensors"


@dataclass(frozen=True)
class KeptGates:
    """The gates of each branch by unit, the smallest gap of each concept, the key of the edit that
    they come from, and the mismatch before and after compensation; no gates by default."""

    branches: Sequence[Mapping[Unit, Neurons]] = ()
    gaps: Mapping[str, float] = field(default_factory=dict)
    key: str | None = None
    mismatch: Mapping[str, Mismatch] = field(default_factory=dict)

    def of_branch(self, number: int) -> Mapping[Unit, Neurons]:
        return self.branches[number] if self.branches else {}


def kept_gates(earlier: RunFolder, model: Model) -> KeptGates:
    """Return the gates in an earlier run's folder.

    Raises:
        ValueError: the file is missing or modified, or belongs to another text encoder or, if it
            has compensation, to another UNet.
    """
    if changed_files(earlier, [FILE]):
        raise ValueError(
            f"revises = {earlier.root}: {FILE} is missing, or not what the run wrote; "
            f"resume={earlier.root} writes it again"
        )
    facts = edit_facts(earlier)["model"]
    found = facts.get("text_fingerprint")
    if found != model.text_fingerprint:
        raise ValueError(
            f"the gates of {earlier.root} belong to the text encoder {found}, not to "
            f"{model.text_fingerprint} of this model: give the model of that run"
        )
    gates = read_gates(earlier.root / FILE, recorded_keys(earlier).get("edit"))
    if gates.mismatch and facts.get("fingerprint") != model.fingerprint:
        raise ValueError(
            f"the gates of {earlier.root} were fitted for the UNet of {facts.get('fingerprint')}, "
            f"not of {model.fingerprint} (method.compensation_images): give the model of that run"
        )
    return gates


def read_gates(file: Path, key: str | None) -> KeptGates:
    """Read a file of gates. Raises ValueError where its header has no units."""
    tensors, facts = load_tensors(file)
    there = [component for component in TEXT_ENCODERS if f"{component}.read" in tensors]
    if any(f"{component}.units" not in facts for component in there):
        raise ValueError(
            f"{file} is of an earlier version, which did not write what each neuron opens for: "
            "resume= its run first"
        )
    return KeptGates(
        [_branch(tensors, component, facts[f"{component}.units"]) for component in there],
        json.loads(facts["gaps"]),
        key,
        {slug: tuple(each) for slug, each in json.loads(facts.get("mismatch", "{}")).items()},
    )


def _branch(tensors: Mapping[str, Tensor], component: str, units: str) -> dict[Unit, Neurons]:
    read, bias, write = (tensors[f"{component}.{name}"] for name in ("read", "bias", "write"))
    rows: dict[Unit, list[int]] = {}
    for row, (slug, prefix) in enumerate(json.loads(units)):
        rows.setdefault((slug, tuple(prefix)), []).append(row)
    return {
        unit: Neurons(read[chosen], bias[chosen], write[:, chosen])
        for unit, each in rows.items()
        for chosen in [torch.tensor(each)]
    }
