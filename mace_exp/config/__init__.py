"""The run configuration: conf/ composed, validated, and converted to dataclasses.

Nothing here imports torch, so that errors are reported quickly. Hydra is imported with the first
name that needs it: a wrong key is refused without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mace_exp.config.composing import composed_run as composed_run
    from mace_exp.config.composing import model_named as model_named
    from mace_exp.config.composing import quoted as quoted
    from mace_exp.config.hydra_shortcuts import quick_hydra as quick_hydra
    from mace_exp.config.options import CONF as CONF
    from mace_exp.config.options import VARIANTS as VARIANTS
    from mace_exp.config.options import register as register
    from mace_exp.config.refusals import explain as explain
    from mace_exp.config.refusals import named_option as named_option
    from mace_exp.config.sweeps import are_numbered as are_numbered
    from mace_exp.config.sweeps import check_jobs as check_jobs
    from mace_exp.config.sweeps import planned_jobs as planned_jobs
    from mace_exp.config.validation import to_run_config as to_run_config

_MODULES = {
    "composing": ("composed_run", "model_named", "quoted"),
    "options": ("CONF", "VARIANTS", "register"),
    "hydra_shortcuts": ("quick_hydra",),
    "refusals": ("explain", "named_option"),
    "sweeps": ("are_numbered", "check_jobs", "planned_jobs"),
    "validation": ("to_run_config",),
}
__all__ = [
    "CONF",
    "VARIANTS",
    "are_numbered",
    "check_jobs",
    "composed_run",
    "explain",
    "model_named",
    "named_option",
    "planned_jobs",
    "quick_hydra",
    "quoted",
    "register",
    "to_run_config",
]


def __getattr__(name: str) -> Any:
    """Import the module of a name when the name is first needed."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
