"""`judge=none`: no judge; metrics that need none are still computed."""

from dataclasses import dataclass

from mace_exp.evaluation.judges.base import JudgeConfig


@dataclass(kw_only=True)
class NoJudge(JudgeConfig):
    """No judge: accuracy and text scores are not measured, and metrics.json says so."""

    name = "none"
