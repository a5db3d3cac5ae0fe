"""Models and pictures with numbers that are not finite are refused: black is no erasure."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mace_exp import erase
from mace_exp.models.loading import check_finite, load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.models.saving import save_pipeline
from mace_exp.stages.metrics import _tell_of_blindness
from tests.tiny import tiny_pipeline

SETTINGS = SamplingSettings(steps=1, guidance=2, scheduler="ddim", batch_size=2)
WEIGHTS = (
    ("unet", "conv_in.weight"),
    ("vae", "decoder.conv_out.bias"),
    ("text_encoder", None),
)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("part", "name"), WEIGHTS)
def test_a_weight_that_is_not_finite_is_named(part: str, name: str | None, value: float) -> None:
    pipeline = tiny_pipeline()
    module = getattr(pipeline, part)
    weight = dict(module.named_parameters())[name] if name else next(module.parameters())
    check_finite(pipeline)
    weight.data.view(-1)[-1] = value
    with pytest.raises(ValueError, match=f"not finite, as in {part}.{name or ''}"):
        check_finite(pipeline)
    with pytest.raises(ValueError, match="not finite"):
        erase(pipeline, "Adam Driver", progress=False)


def test_weights_whose_sum_overflows_are_finite() -> None:
    pipeline = tiny_pipeline()
    pipeline.unet.conv_in.weight.data.fill_(3e38)
    check_finite(pipeline)


def test_a_damaged_model_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.vae.decoder.conv_in.weight.data[0] = torch.nan
    save_pipeline(pipeline, tmp_path / "model")
    with pytest.raises(ValueError, match="as in vae.decoder.conv_in.weight"):
        load_pipeline(tmp_path / "model", device="cpu")


def test_pictures_that_are_not_finite_are_refused_by_their_prompt() -> None:
    pipeline: Any = tiny_pipeline()
    assert sample(pipeline, ["a cat"], [0], SETTINGS).dtype == np.uint8
    pipeline.unet.conv_out.bias.data.fill_(3e38)  # finite, and yet
    with pytest.raises(ValueError, match="'a cat': what the model draws in .* is not finite"):
        sample(pipeline, ["a cat", "a dog"], [0, 1], SETTINGS)


def test_an_original_in_which_nothing_is_recognised_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rate = {"value": 0.0, "low": 0.0, "high": 0.1, "n": 30}
    metrics: dict[str, Any] = {
        "erased": {"accuracy": rate | {"original": 0.0}},
        "preserved": {"accuracy": rate | {"original": 0.9}},
        "harmonic_mean": 0.0,
        "missing": [],
    }
    with caplog.at_level(logging.WARNING):
        _tell_of_blindness(metrics)
    (said,) = metrics["missing"]
    assert said.startswith("erased: the judge recognises nothing") and caplog.messages == [said]
