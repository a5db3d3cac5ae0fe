"""The judge of a run together with the run's subjects: its part of cache keys, and its answers for
pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.comparison import Comparison
from mace_exp.evaluation.judges.base import (
    Judge,
    JudgeConfig,
    JudgeError,
    JudgeTask,
    check_answers,
)
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.evaluation.schema import Choice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunJudge:
    """A judge's settings, and the kind of each subject of a run by name."""

    config: JudgeConfig
    subjects: Mapping[str, Kind]

    @property
    def identity(self) -> object:
        """The judge's part of cache keys: its name and, if it has any, its inputs."""
        inputs = self.config.inputs(self.subjects)
        return [self.config.name, inputs] if inputs else self.config.name

    def check(self, device: str) -> None:
        """Check what needs the judge's models, before anything is drawn. Raises ValueError."""
        self.config.check(self._task(device))

    def judge_pictures(
        self,
        prompts: Sequence[EvaluationPrompt],
        before: np.ndarray,
        after: np.ndarray,
        choice: Choice,
        *,
        device: str,
        specificity: str,
    ) -> tuple[Measured, list[str]]:
        """Return pictures [n, H, W, 3] before and after an edit with the judge's answers, and the
        judge's failures. After a failure the pictures have no judge: metrics that need none are
        still computed."""
        config = self.config
        unjudged = Measured(
            prompts,
            before,
            after,
            supports=config.answers(),
            specificity=specificity,
            threshold=config.min_score(choice.threshold),
            person_threshold=config.min_person_score(),
            counting=config.counting(),
            kinds=self.subjects if config.within_kind else None,
            batch=config.batch,
            comparison=choice.distances and Comparison(choice.distances, device),
        )
        try:
            measured = replace(unjudged, judge=self.load(device))
            _ = measured.scored  # compute all stored scores here, so that failures are caught
        except JudgeError as error:
            said = f"judge={config.name} failed: {error}"
            log.error("%s", said)
            return unjudged, [said]
        return measured, []

    def load(self, device: str) -> Judge | None:
        """Load the judge for the subjects of the run.

        Raises:
            JudgeError: it can't be loaded, or lacks an answer that its option promises.
        """
        judge = self.config.open(self._task(device))
        if judge is not None:
            check_answers(judge, self.config.answers())
        return judge

    def _task(self, device: str) -> JudgeTask:
        return JudgeTask(self.subjects, device)
