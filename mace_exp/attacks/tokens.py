"""`attack=tokens`: an adversarial prefix of real words before prompts that name the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from mace_exp.attacks.base import Perform, PictureAttack, check_points
from mace_exp.utils.ranges import WHOLE


@dataclass(kw_only=True)
class TokensAttack(PictureAttack):
    """UnlearnDiffAtk's objective, the denoising loss of pictures of the concept (Zhang et al., ECCV
    2024, arXiv 2310.11868, equation 5), minimised over words by greedy coordinate gradient (Zou et
    al. 2023, arXiv 2307.15043, algorithm 1)."""

    name = "tokens"
    unit = "step"

    prefix: Annotated[int, WHOLE]  # tokens before the prompt
    steps: list[int]  # after which recognition is measured; the last is the budget
    candidates: Annotated[int, WHOLE]  # replacements that are tried per step
    top: Annotated[int, WHOLE]  # best tokens by gradient at each position, to sample from
    batch_size: Annotated[int, WHOLE]  # noised latents on which a step's losses are computed

    def __post_init__(self) -> None:
        check_points("attack.steps", self.steps)

    def longest(self, prompts: Sequence[str]) -> list[str]:
        return [f"{'a ' * self.prefix}{prompt}" for prompt in prompts]

    def build(self) -> Perform:
        from mace_exp.attacks.prefix import PrefixSearch

        return PrefixSearch(
            length=self.prefix,
            steps=self.steps,
            candidates=self.candidates,
            top=self.top,
            batch_size=self.batch_size,
            seed=self.seed,
        )
