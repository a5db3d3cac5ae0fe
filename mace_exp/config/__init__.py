"""The run configuration: conf/ composed, validated, and converted to dataclasses.

Nothing here imports torch, so that errors are reported quickly.
"""

from mace_exp.config.composing import composed_run, model_named, quoted
from mace_exp.config.options import CONF, VARIANTS, register
from mace_exp.config.refusals import explain, named_option
from mace_exp.config.sweeps import are_numbered, check_jobs, planned_jobs
from mace_exp.config.validation import NAMED_KEYS, to_run_config

__all__ = [
    "CONF",
    "NAMED_KEYS",
    "VARIANTS",
    "are_numbered",
    "check_jobs",
    "composed_run",
    "explain",
    "model_named",
    "named_option",
    "planned_jobs",
    "quoted",
    "register",
    "to_run_config",
]
