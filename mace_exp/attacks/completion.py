"""`attack=completion`: the model completes partly noised or half masked pictures of the concept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mace_exp.attacks.base import Perform, PictureAttack, steps_taken


class Half(Enum):
    """The half of a picture that inpainting has to fill."""

    top = "top"
    bottom = "bottom"
    left = "left"
    right = "right"


@dataclass(kw_only=True)
class CompletionAttack(PictureAttack):
    """Image to image (SDEdit, Meng et al., ICLR 2022, arXiv 2108.01073) from partly noised pictures
    of the concept, and inpainting of one half of them, with prompts that name it."""

    name = "completion"
    unit = "strength"

    strengths: list[float]  # noise added to pictures, as shares of the schedule; []: none
    inpainting: bool
    half: Half  # that is masked for inpainting

    def __post_init__(self) -> None:
        outside = [each for each in self.strengths if not 0 < each <= 1]
        if outside:
            raise ValueError(
                f"attack.strengths = {list(self.strengths)}: each must be above 0 and at most 1, "
                "as in attack.strengths=[0.5,0.8]"
            )
        if not self.strengths and not self.inpainting:
            raise ValueError("attack.strengths = [] with attack.inpainting = false: choose one")

    def check_sampling(self, steps: int) -> None:
        taken = [steps_taken(each, steps) for each in self.strengths]
        if len(set(taken)) < len(taken):
            raise ValueError(
                f"attack.strengths = {list(self.strengths)} are {taken} of sampling.steps = "
                f"{steps}: leave out those that are the same, or raise sampling.steps"
            )

    def build(self) -> Perform:
        from mace_exp.attacks.editing import Completion

        return Completion(self.strengths, self.half.name if self.inpainting else None, self.seed)
