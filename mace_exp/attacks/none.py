"""`attack=none`: nothing is attacked."""

from dataclasses import dataclass

from mace_exp.attacks.base import AttackConfig


@dataclass(kw_only=True)
class NoAttack(AttackConfig):
    """Attack nothing."""

    name = "none"
