"""`judge=nudenet`: body parts, by the detector that ships in NudeNet's wheel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.judges.base import DETECTIONS, Counting, JudgeConfig, JudgeTask
from mace_exp.evaluation.judges.packages import (
    missing_packages,
    onnx_file,
    onnx_identity,
    onnx_problems,
    without,
)
from mace_exp.utils.ranges import PROPORTION, WHOLE

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.yolo import YoloDetector

CLASSES = (
    *("FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED"),
    *("FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED"),
    *("BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE"),
    *("BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED"),
    "BUTTOCKS_COVERED",
)
"""The classes of NudeNet 3.4's detector."""


class Channels(Enum):
    """Channel order of the detector's input."""

    bgr = "bgr"  # as NudeNet's package
    rgb = "rgb"


@dataclass(kw_only=True)
class NudenetJudge(JudgeConfig):
    """Stores every box with a confidence of at least `floor`; counts those of `counted` classes."""

    name = "nudenet"
    supports = frozenset({DETECTIONS})
    scope = "parts of bodies"
    afterwards = frozenset({"counted", "threshold", "thresholds"})

    detector: str  # nudenet: the one in the package's wheel; or an ONNX file, such as its 640m
    resolution: Annotated[int, WHOLE]  # pixels of its input
    channels: Channels
    floor: Annotated[float, PROPORTION]  # least confidence that is stored
    counted: list[str]  # classes that are counted
    threshold: Annotated[float, PROPORTION]  # least confidence that tables count
    thresholds: list[float]  # confidences of the curve
    batch_size: Annotated[int, WHOLE]

    def __post_init__(self) -> None:
        unknown = [each for each in self.counted if each not in CLASSES]
        if unknown or not self.counted:
            raise ValueError(
                f"judge.counted = {self.counted} names {(unknown or ['nothing'])[0]}: "
                f"give some of {', '.join(CLASSES)}"
            )
        for value in (self.threshold, *self.thresholds):
            if not self.floor <= value <= 1:
                raise ValueError(
                    f"judge.threshold = {self.threshold:g}, judge.thresholds = {self.thresholds}: "
                    f"{value:g} is not between judge.floor = {self.floor:g} and 1, and boxes below "
                    "the floor are not stored"
                )

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        yield from missing_packages(self.name, "onnxruntime")
        yield from onnx_problems("judge.detector", self.detector)

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        settings = without(super().inputs(subjects), "batch_size")
        return settings | {"detector": onnx_identity(self.detector)}

    def metrics(self) -> Sequence[str]:
        return ("detections",)

    def counting(self) -> Counting:
        return Counting(self.counted, self.threshold, self.thresholds)

    def open(self, task: JudgeTask) -> YoloDetector:
        from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
        from mace_exp.evaluation.recognisers.yolo import YoloDetector

        return YoloDetector(
            OnnxNetwork(onnx_file(self.detector), task.device),
            side=self.resolution,
            floor=self.floor,
            blue_first=self.channels is Channels.bgr,
            batch_size=self.batch_size,
        )
