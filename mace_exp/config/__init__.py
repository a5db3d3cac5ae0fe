"""The run configuration: conf/ composed, checked, and handed over as dataclasses.

Nothing here imports torch: a run that is refused is refused in about a second.
"""

from mace_exp.config.composing import composed_run, model_named
from mace_exp.config.crossing import to_run_config
from mace_exp.config.options import CONF, VARIANTS, register
from mace_exp.config.refusals import explain

__all__ = [
    "CONF",
    "VARIANTS",
    "composed_run",
    "explain",
    "model_named",
    "register",
    "to_run_config",
]
