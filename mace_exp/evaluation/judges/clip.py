"""`judge=clip`: zero-shot recognition and text scores by any CLIP or SigLIP of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.judges.base import (
    FEATURES,
    SUBJECT,
    TEXT_IMAGE,
    JudgeConfig,
    JudgeTask,
)
from mace_exp.evaluation.judges.packages import without
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from mace_exp.utils.ranges import WHOLE

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.zero_shot import ZeroShotJudge


@dataclass(kw_only=True)
class ClipJudge(JudgeConfig):
    """Zero-shot classification among the subjects of the expected subject's kind."""

    name = "clip"
    supports = frozenset({SUBJECT, TEXT_IMAGE, FEATURES})
    scope = "every subject that the run names"
    within_kind = True

    source: str  # CLIP or SigLIP, a transformers folder or a hub id
    allow_download: bool  # download a hub id that is not in the local cache
    templates: dict[str, list[str]]  # sentences by kind, {} stands for the name; averaged
    others: dict[str, list[str]]  # further classes by kind
    batch_size: Annotated[int, WHOLE]

    def __post_init__(self) -> None:
        kinds = [kind.name for kind in Kind]
        for key, given in (("templates", self.templates), ("others", self.others)):
            unknown = [each for each in given if each not in kinds]
            if unknown:
                raise ValueError(
                    f"judge.{key} names the kind {unknown[0]!r}: kinds are {', '.join(kinds)}"
                )
        for kind in kinds:
            given = self.templates.get(kind, [])
            if not given or any(each.count("{}") != 1 for each in given):
                raise ValueError(
                    f"judge.templates.{kind} = {given}: give at least one sentence, and {{}} once "
                    f"in each, as in judge.templates.{kind}='[a photo of {{}}]'"
                )

    def candidates(self, subjects: Mapping[str, Kind]) -> dict[str, Kind]:
        """Return all classes: the run's subjects and `others`, each name once."""
        found = dict(subjects)
        known = {name_key(name) for name in subjects}
        for kind, names in self.others.items():
            found |= {name: Kind[kind] for name in names if name_key(name) not in known}
        return found

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        try:
            check_auxiliary(self.source, allow_download=self.allow_download)
        except ValueError as error:
            yield f"judge.source = {self.source} {error}"
        kinds = list(self.candidates(subjects).values())
        for name in erased:
            kind = subjects[name]
            if kinds.count(kind) < 2:
                yield (
                    f"judge = clip chooses among the subjects of a kind, and {name!r} is the only "
                    f"{kind.name}: it would always be recognised. Name more in kept, or in "
                    f"judge.others.{kind.name}"
                )

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        settings = without(super().inputs(subjects), "batch_size", "allow_download", "others")
        classes = {name: kind.name for name, kind in self.candidates(subjects).items()}
        return settings | {"source": auxiliary_identity(self.source), "classes": classes}

    def open(self, task: JudgeTask) -> ZeroShotJudge:
        from mace_exp.evaluation.recognisers.vision import VisionEncoder
        from mace_exp.evaluation.recognisers.zero_shot import ZeroShotJudge

        encoder = VisionEncoder.load(
            "judge.source",
            self.source,
            allow_download=self.allow_download,
            device=task.device,
            batch_size=self.batch_size,
        )
        candidates = self.candidates(task.subjects)
        sentences = {
            name: [template.format(name) for template in self.templates[kind.name]]
            for name, kind in candidates.items()
        }
        return ZeroShotJudge(encoder, sentences)
