"""docs/architecture.md says how to add to the house: each is added here, from outside."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from safetensors.torch import load_file

from mace_exp.config.options import VARIANTS
from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages
from mace_exp.data.masks.pixels import Masks
from mace_exp.methods.base import Edit, MethodConfig, MethodInputs, NoIntermediateStates, Settings
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read


@dataclass(kw_only=True)
class HalfMasks(MasksConfig):
    """The left part of every image."""

    share: float

    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        return {"half": self.share}

    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        count, height, width = seen.images.images.shape[:3]
        found = np.zeros((count, height, width), dtype=bool)
        found[:, :, : int(self.share * width)] = True
        return Masks(found)


@dataclass(kw_only=True)
class FadeConfig(MethodConfig):
    """Shrink the last layer norm of the text encoder: an edit outside of the denoiser."""

    name: ClassVar[str] = "fade"
    source: ClassVar[str] = "a test"
    factor: float

    def steps(self) -> tuple[str, ...]:
        return ("fade",)

    def reads(self) -> frozenset[str]:
        return frozenset()

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Any:
        return Fade(context, self, settings, given)


class Fade(NoIntermediateStates[FadeConfig]):
    def check(self) -> None:
        return None

    @property
    def edit(self) -> Result[Edit]:
        name, encoder = "final_layer_norm.weight", self.context.model.pipeline.text_encoder
        key = result_key("fade", 1, factor=self.config.factor, **self.context.model.computed_by)

        def make() -> Edit:
            parameter = encoder.get_parameter(name).detach()
            return Edit({f"text_encoder.{name}": self.config.factor * parameter})

        return Result(key, make)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Register an option's schema and write its file; return the argument that finds the file."""

    def add(group: str, name: str, schema: type, values: str) -> str:
        monkeypatch.setitem(VARIANTS, group, {**VARIANTS[group], name: schema})
        file = tmp_path / "options" / group / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"# Added.\ndefaults: [/schema/{group}/{name}@_here_, _self_]\n\n{values}\n"
        )
        return f"hydra.searchpath=['file://{tmp_path / 'options'}']"

    repository = ConfigStore.instance().repo.copy()
    yield add
    ConfigStore.instance().repo = repository


def test_a_mask_source(run: Run, added: Callable[..., str]) -> None:
    search = added("masks", "half", HalfMasks, "share: 0.5")
    first = run("half", PEOPLE, search, "masks=half", f"stages={UP_TO_FUSION}")
    assert read(first / "summary.json")["made"]["masks"] == 2
    assert len(list((first / "masks").glob("*.png"))) == 4
    again = run("again", PEOPLE, search, "masks=half", "masks.share=0.25", f"stages={UP_TO_FUSION}")
    made = read(again / "summary.json")["made"]
    assert made == {"masks": 2, "loras": 2}, "its settings are in its keys"


def test_a_method_that_edits_the_text_encoder(
    run: Run, added: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    search = added("method", "fade", FadeConfig, "factor: 0.5")
    unread = ("lora", "images.", "prompts.", "preservation.")
    arguments[:] = [each for each in arguments if not each.startswith(unread)]
    folder = run("fade", PEOPLE, search, "method=fade")
    edit = load_file(folder / "edit.safetensors")
    assert list(edit) == ["text_encoder.final_layer_norm.weight"]
    erased = StableDiffusionPipeline.from_pretrained(folder / "erased").text_encoder
    norm = dict(erased.named_parameters())
    found = next(each for name, each in norm.items() if name.endswith("final_layer_norm.weight"))
    assert torch.equal(found.detach(), edit["text_encoder.final_layer_norm.weight"])
    assert read(folder / "metrics.json")["erased"]["pixel_change"] > 0
    again = run("fade", PEOPLE, search, "method=fade", "stages=[samples,metrics]")
    assert read(again / "status.json")["status"] == "finished"
    stages = run("other", PEOPLE, search, "method=fade", "method.factor=0.25")
    assert set(read(stages / "summary.json")["made"]) == {"edited"}


@pytest.fixture
def with_term(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Write an experiment with a further term; return the arguments that choose it."""

    def write(captions: str, more: str = "") -> tuple[str, str]:
        keys = f"source: none, unit: 1, count: 0, captions: {captions}, file: null, cache: null"
        text = f"preservation:\n  terms:\n    boats: {{{keys}}}\n  weights: {{boats: 100}}\n{more}"
        file = tmp_path / "mine" / "experiment" / "boats.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{text}", encoding="utf-8")
        return f"hydra.searchpath=['file://{tmp_path / 'mine'}']", "experiment=boats"

    return write


def test_a_preservation_term(run: Run, with_term: Callable[..., tuple[str, str]]) -> None:
    first = run("usual", PEOPLE, f"stages={UP_TO_FUSION}")
    given = with_term("[a boat at sea]")
    folder = run("boats", PEOPLE, *given, f"stages={UP_TO_FUSION}")
    assert read(folder / "summary.json")["made"] == {"statistics": 1, "refinements": 1, "loras": 2}
    one, two = (load_file(each / "edit.safetensors") for each in (first, folder))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    given = with_term("[a boat at sea]", "cfr:\n  weights: {boats: 0}\n")
    only = run("fused", PEOPLE, *given, f"stages={UP_TO_FUSION}")
    assert read(only / "summary.json")["made"] == {}, "it weighs in fusion alone"


def test_a_term_without_captions_is_refused(
    refusal: Callable[..., str], with_term: Callable[..., tuple[str, str]]
) -> None:
    message = refusal(*with_term("[]"))
    assert "cfr.weights.boats = 100" in message and "preservation.terms.boats.count" in message
    message = refusal("++fusion.weights.y=1")
    assert "fusion.weights.y = 1" in message and "prior, domain" in message
