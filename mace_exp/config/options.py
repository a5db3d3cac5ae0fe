"""The options of conf/, and the schema that each of them fills."""

from hydra.core.config_store import ConfigStore

from mace_exp.concepts.schema import FilePrompts, LlmPrompts, TemplatePrompts
from mace_exp.config.run_config import RunConfig
from mace_exp.data.schema import (
    AttentionMasks,
    FolderImages,
    FolderPriorImages,
    GeneratedImages,
    GroundedSamMasks,
    ListedPriorImages,
    NoMasks,
    NoPriorImages,
    PrecomputedMasks,
    WholeMasks,
)
from mace_exp.evaluation.schema import NoEvaluation, SampledEvaluation
from mace_exp.runs.schema import NoTracking, WandbTracking
from mace_exp.utils.conf import CONF as CONF

VARIANTS: dict[str, dict[str, type]] = {
    "prompts": {"file": FilePrompts, "llm": LlmPrompts, "templates": TemplatePrompts},
    "images": {"generated": GeneratedImages, "folder": FolderImages},
    "masks": {
        "attention": AttentionMasks,
        "grounded_sam": GroundedSamMasks,
        "none": NoMasks,
        "precomputed": PrecomputedMasks,
        "whole": WholeMasks,
    },
    "prior_images": {
        "none": NoPriorImages,
        "folder": FolderPriorImages,
        "lists": ListedPriorImages,
    },
    "evaluation": {"sampled": SampledEvaluation, "none": NoEvaluation},
    "tracking": {"wandb": WandbTracking, "none": NoTracking},
}


def register() -> None:
    """Put the schemas where conf/ finds them: `run_schema` and `/schema/<group>/<variant>`."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for group, variants in VARIANTS.items():
        for name, schema in variants.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
