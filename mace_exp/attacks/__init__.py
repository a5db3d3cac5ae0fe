"""Attacks on an edited model: one module per option of `attack=`."""

from mace_exp.attacks.base import AttackConfig, NoAttack
from mace_exp.attacks.completion import CompletionAttack
from mace_exp.attacks.inversion import InversionAttack
from mace_exp.attacks.paraphrase import LlmParaphraseAttack, ParaphraseAttack
from mace_exp.attacks.relearning import RelearningAttack
from mace_exp.attacks.tokens import TokensAttack

ATTACKS: dict[str, type[AttackConfig]] = {
    each.name: each
    for each in (
        *(CompletionAttack, InversionAttack, LlmParaphraseAttack, NoAttack),
        *(ParaphraseAttack, RelearningAttack, TokensAttack),
    )
}
"""The schema of each option of `attack`, including those added before conf/ is composed."""
