"""The stages of a run."""

from enum import Enum


class Stage(Enum):
    """The stages of a run, in their order."""

    images = "images"
    masks = "masks"
    preservation = "preservation"
    cfr = "cfr"
    lora = "lora"
    fusion = "fusion"
    samples = "samples"
    metrics = "metrics"
    report = "report"


NEEDS_FUSION = (Stage.fusion, Stage.samples, Stage.metrics)
"""Stages that make or use the fused weights."""
