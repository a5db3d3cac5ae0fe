"""Attacks by prompts alone: nothing is optimised."""

from __future__ import annotations

from typing import Any

from mace_exp.attacks.base import Aim, Attempt
from mace_exp.attacks.denoising import Recorder


def draw_once(pipeline: Any, aim: Aim) -> Attempt:
    """Draw the aim's prompts with the model as it is."""
    recorder = Recorder(pipeline, aim)
    recorder.draw("", 0)
    return recorder.attempt()
