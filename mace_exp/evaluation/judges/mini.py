"""`judge=mini`: the classifier shipped with the embedded model."""

from dataclasses import dataclass

from mace_exp.evaluation.judges.base import ANSWERS, Judge, JudgeConfig


@dataclass(kw_only=True)
class MiniWorldJudge(JudgeConfig):
    """Recognises the people, objects, styles and scenes on which the embedded model was trained."""

    name = "mini"
    side = 96
    supports = ANSWERS
    scope = "what the embedded model was trained on"

    def load(self) -> Judge:
        """Load the shipped weights; imports torch."""
        from mace_exp.mini.judge import MiniJudge

        return MiniJudge.load()

    def known_subjects(self) -> frozenset[str]:
        """Return the names of all people, objects and styles that the embedded model was trained
        on."""
        from mace_exp.mini.captions import subject_classes

        return frozenset(subject_classes())

    def known_people(self) -> tuple[str, ...]:
        """Return the names of the 200 people."""
        from mace_exp.mini.captions import people

        return people()
