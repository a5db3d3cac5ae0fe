"""Models in half precision, and gradient checkpointing, through the whole run on a CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file

from mace_exp.methods.mace.stages import cfr, fusion, lora
from tests.fusing import learned
from tests.whole_run import SMALL, UP_TO_FUSION, Run, read

LITTLE = ("concepts=[Adam Driver]", "evaluation.parts=[erased]", "evaluation.images_per_part=1")
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture
def arguments(checked_folder: Path, tmp_path: Path) -> list[str]:
    """Of the fixture `run`."""
    where = ["model=path", f"model.source={checked_folder}", f"cache_dir={tmp_path / 'cache'}"]
    return [*where, *SMALL, *LITTLE]


def dtypes(file: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(file).values()}


@pytest.mark.parametrize("name", HALF)
def test_a_half_precision_model_is_erased_in_full_precision(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    solved: list[torch.Tensor] = []
    refine, fuse = cfr.refine, fusion.fuse

    def refined(sums: Any, **more: Any) -> torch.Tensor:
        solved.extend([sums.cross, sums.gram, more["preserved"], transform := refine(sums, **more)])
        return transform

    def fused(weights: Any, transform: Any, sums: Any, **more: Any) -> Any:
        solved.extend([sums.gram, sums.mapped, more["preserved"]])
        solved.extend(learned(sums).values())
        return fuse(weights, transform, sums, **more)

    monkeypatch.setattr(cfr, "refine", refined)
    monkeypatch.setattr(fusion, "fuse", fused)
    folder = run("half", f"model.dtype={name}", "device=cpu", "lora.gradient_checkpointing=true")
    assert len(solved) > 8 and {tensor.dtype for tensor in solved} == {torch.float64}
    assert dtypes(folder / "loras" / "adam-driver.safetensors") == {torch.float32}
    assert dtypes(folder / "edit.safetensors") == {HALF[name]}
    statistics = list((tmp_path / "cache" / "statistics").iterdir())
    assert [dtypes(file) for file in statistics] == [{torch.float64}] * 2
    assert read(folder / "status.json")["status"] == "finished"
    assert (folder / "attention" / "index.csv").is_file()
    erased: Any = StableDiffusionPipeline.from_pretrained(folder / "erased")
    assert erased.safety_checker is not None
    assert {part.dtype for part in (erased.unet, erased.vae, erased.text_encoder)} == {
        torch.float32
    }
    drawn = erased("a cat", num_inference_steps=1, output_type="np")
    assert drawn.nsfw_content_detected == [True] and np.isfinite(drawn.images).all()


def test_what_one_precision_drew_is_not_another_ones(run: Run) -> None:
    """A fingerprint is that of the numbers in float16: it can't tell these two runs apart."""
    whole = run("whole")
    half = run("half", "model.dtype=float16")
    facts = [read(folder / "summary.json") for folder in (whole, half)]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    made = facts[1]["made"]
    kinds = ("images", "samples", "loras", "statistics")
    assert {kind: made.get(kind) for kind in kinds} == {
        kind: facts[0]["made"][kind] for kind in kinds
    }


def test_checkpointed_loras_are_those_without(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key reaches the training, saves nothing but memory, and is no part of a LoRA's key."""
    seen: list[bool] = []
    train = lora.train_loras

    def watched(unet: Any, *arguments: Any, **named: Any) -> Any:
        calls: list[int] = []
        path = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
        hook = unet.get_submodule(path).register_forward_hook(
            lambda *_: calls.append(1) if torch.is_grad_enabled() else None
        )
        try:
            return train(unet, *arguments, **named)
        finally:
            hook.remove()
            seen.append(len(calls) == 2 * 3)

    monkeypatch.setattr(lora, "train_loras", watched)
    only = f"stages={UP_TO_FUSION}"
    first = run("first", only, "lora.gradient_checkpointing=true")
    again = run("again", only, "lora.gradient_checkpointing=false")
    assert seen == [True] and read(again / "summary.json")["reused"]["loras"] == 1
    other = run("other", only, f"cache_dir={first.parent / 'elsewhere'}")
    assert seen == [True, False]
    one, two = (load_file(folder / "edit.safetensors") for folder in (first, other))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
