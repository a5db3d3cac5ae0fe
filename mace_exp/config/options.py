"""The options of conf/ and their schemas."""

from collections.abc import Mapping

from mace_exp.attacks import ATTACKS
from mace_exp.config.run_config import RunConfig
from mace_exp.data.images.folder import FolderImages
from mace_exp.data.images.generated import GeneratedImages
from mace_exp.data.masks.attention import AttentionMasks
from mace_exp.data.masks.grounded_sam import GroundedSamMasks
from mace_exp.data.masks.none import NoMasks, WholeMasks
from mace_exp.data.masks.precomputed import PrecomputedMasks
from mace_exp.data.prior_images.base import FolderPriorImages, ListedPriorImages, NoPriorImages
from mace_exp.data.prompts.base import TemplatePrompts
from mace_exp.data.prompts.file import FilePrompts
from mace_exp.data.prompts.llm import LlmPrompts
from mace_exp.evaluation.judges import JUDGES
from mace_exp.evaluation.schema import NoEvaluation, SampledEvaluation
from mace_exp.methods.esd.config import EsdConfig
from mace_exp.methods.gates.config import GatesConfig
from mace_exp.methods.mace.config import MaceConfig
from mace_exp.methods.rece import ReceConfig
from mace_exp.methods.speed import SpeedConfig
from mace_exp.methods.uce import UceConfig
from mace_exp.runs.schema import NoTracking, WandbTracking
from mace_exp.utils.conf import CONF as CONF

VARIANTS: dict[str, Mapping[str, type]] = {
    "method": {
        "esd_x": EsdConfig,
        "gates": GatesConfig,
        "mace": MaceConfig,
        "rece": ReceConfig,
        "speed": SpeedConfig,
        "uce": UceConfig,
    },
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
    "judge": JUDGES,
    "attack": ATTACKS,
    "tracking": {"wandb": WandbTracking, "none": NoTracking},
}


def register() -> None:
    """Register the schemas for conf/: `run_schema` and `/schema/<group>/<variant>`; have option
    files of the user's folders checked."""
    from hydra.core.config_store import ConfigStore

    from mace_exp.config.composed_once import stored_schema
    from mace_exp.config.option_files import check_user_files

    check_user_files(VARIANTS)
    schemas: dict[str, type] = {"run_schema": RunConfig}
    for group, variants in VARIANTS.items():
        schemas |= {f"schema/{group}/{name}": each for name, each in variants.items()}
    for path, schema in schemas.items():
        if stored_schema(path) is not schema:  # storing reads the types of all fields
            group, _, name = path.rpartition("/")
            ConfigStore.instance().store(group=group or None, name=name, node=schema)
