"""What a metric reads: prompts, the pictures drawn for them before and after an edit, and what the
judge says of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np

from mace_exp.evaluation.judges.base import ANSWERS, Judge
from mace_exp.evaluation.prompts import PARTS, PRESERVED, EvaluationPrompt
from mace_exp.evaluation.verdicts import Verdict


@dataclass(frozen=True)
class Measured:
    """Pictures [n, H, W, 3], uint8, of the same prompts and seeds before and after an edit.

    `supports` are the answers that the judge gives. `specificity` is the part whose accuracy
    enters the harmonic mean.

    Raises:
        ValueError: no prompts, or another number of pictures than of prompts.
    """

    prompts: Sequence[EvaluationPrompt]
    before: np.ndarray
    after: np.ndarray
    _: KW_ONLY
    judge: Judge | None = None
    supports: frozenset[str] = ANSWERS
    specificity: str = PRESERVED

    def __post_init__(self) -> None:
        counts = len(self.prompts), len(self.before), len(self.after)
        if not self.prompts or len(set(counts)) > 1:
            raise ValueError(f"{counts[0]} prompts, {counts[1]} and {counts[2]} pictures")

    @property
    def answers(self) -> frozenset[str]:
        """The answers that can be read off `verdicts`: none without a judge."""
        return frozenset() if self.judge is None else self.supports

    @cached_property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """What the judge says of the pictures before and after.

        Raises:
            ValueError: there is no judge; a metric that reads this names what it needs.
        """
        if self.judge is None:
            raise ValueError("no judge has seen these pictures: the metric must name what it needs")
        texts = [prompt.prompt for prompt in self.prompts]
        return Verdict(self.judge, self.before, texts), Verdict(self.judge, self.after, texts)

    @cached_property
    def parts(self) -> list[str]:
        """The parts of the suite that were drawn, in the order of `suite.PARTS`."""
        drawn = {prompt.part for prompt in self.prompts}
        return [part for part in PARTS if part in drawn]

    def rows(self, part: str) -> np.ndarray:
        """Return the indices of a part's prompts, [m]."""
        return np.flatnonzero([prompt.part == part for prompt in self.prompts])
