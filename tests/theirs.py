"""Configurations of the published implementation, converted and composed."""

from pathlib import Path
from typing import Any

from mace_exp.config.composing import composed_run
from mace_exp.config.run_config import RunConfig
from mace_exp.convert import convert

THEIRS = Path(__file__).parent / "data" / "theirs.yaml"

SHIP: dict[str, Any] = {"multi_concept": [[["ship", "object"]]], "mapping_concept": ["ground"]}

PRIOR = {"with_prior_preservation": True, "prior_loss_weight": 0.5, "preserve_prompt": "a person"}


def composed(theirs: dict[str, Any], folder: Path) -> RunConfig:
    """Convert, write the file, and compose it as `--config-dir` does."""
    file = folder / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(convert(theirs).text("theirs"), encoding="utf-8")
    return composed_run(f"hydra.searchpath=[file://{folder}]", "experiment=theirs", files=False)


def remarks(theirs: dict[str, Any]) -> list[str]:
    return [" ".join(remark.split()) for remark in convert(theirs).remarks]


def concepts(config: RunConfig) -> list[tuple[str, str, str]]:
    return [(each.name, each.kind.name, each.anchor) for each in config.concept_list()]
