"""What a GPU computes, beside what a CPU does: left out where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.models.saving import save_pipeline
from tests.lora_training import CONCEPTS, SHAPES, TRAINING, assert_same, concept, train
from tests.lora_training import pipeline as pipeline
from tests.test_api import changed, erased, state
from tests.tiny_xl import tiny_xl_pipeline, with_added
from tests.whole_run import PEOPLE, Run, read, rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
DDIM = SamplingSettings(steps=4, guidance=3.0, scheduler="ddim", batch_size=2)


def on_gpu(pipeline: Any, dtype: torch.dtype = torch.float64) -> Any:
    pipeline.unet.to("cuda", dtype)
    return pipeline


def test_a_run_changes_the_weights_as_on_a_cpu(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    """Within a hundredth of the change: rounding, carried through drawn pictures and training."""
    edits = []
    for device in ("cpu", "cuda"):
        folder = run(device, PEOPLE, f"device={device}", f"cache_dir={tmp_path / 'cache' / device}")
        assert read(folder / "status.json")["status"] == "finished"
        assert read(folder / "summary.json")["device"] == device
        edits.append(load_file(folder / "edit.safetensors"))
    original = load_file(tiny_folder / "unet" / "diffusion_pytorch_model.safetensors")
    first, second = edits
    change = sum(float((first[name] - original[name]).square().sum()) for name in first)
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    assert 0 < apart < 1e-4 * change


def test_a_run_says_how_much_of_the_gpu_each_stage_took(run: Run) -> None:
    folder = run("gpu", PEOPLE, "device=auto")
    stages = rows(folder, "stage")
    assert stages and all(row["peak_gpu_memory_mb"] >= 0 for row in stages)
    assert any(row["peak_gpu_memory_mb"] > 0 for row in stages)
    assert read(folder / "status.json")["hardware"]["gpu"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("more", [(), ("masks=none", "lora.gradient_checkpointing=true")])
def test_half_precision_runs(run: Run, dtype: str, more: tuple[str, ...]) -> None:
    folder = run("half", PEOPLE, "device=cuda", f"model.dtype={dtype}", *more)
    assert read(folder / "status.json")["status"] == "finished"
    edit = load_file(folder / "edit.safetensors")
    assert {each.dtype for each in edit.values()} == {HALF[dtype]}
    assert all(each.isfinite().all() for each in edit.values())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sdxl_runs(run: Run, tmp_path: Path, dtype: str) -> None:
    save_pipeline(tiny_xl_pipeline(context_length=24), tmp_path / "xl")
    source = (f"model.source={tmp_path / 'xl'}", f"model.dtype={dtype}")
    folder = run("xl", PEOPLE, "device=cuda", *source, "masks=attention")
    assert read(folder / "status.json")["status"] == "finished"


@pytest.mark.parametrize("name", SHAPES)
def test_loras_are_those_of_a_cpu(pipeline: Any, name: str) -> None:
    """Dropout included: its masks are drawn on the CPU."""
    pipeline.unet.double()
    expected = train(pipeline, CONCEPTS, SHAPES[name])
    found = train(on_gpu(pipeline), CONCEPTS, SHAPES[name])
    for slug, lora in expected.items():
        assert_same(found[slug], lora, atol=1e-4)


def test_loras_together_are_those_alone(pipeline: Any) -> None:
    """With images of prior preservation, on a model whose data stays on the CPU."""
    on_gpu(pipeline)
    data = [concept(slug, prior=True) for slug in ("cat", "dog", "monet")]
    together = train(pipeline, data)
    for each in data:
        assert_same(train(pipeline, [each])[each.slug], together[each.slug], atol=1e-4)


def test_checkpointed_loras_are_those_without(pipeline: Any) -> None:
    on_gpu(pipeline)
    checkpointed = train(
        pipeline, CONCEPTS, training=replace(TRAINING, gradient_checkpointing=True)
    )
    for slug, lora in train(pipeline, CONCEPTS).items():
        assert_same(lora, checkpointed[slug], atol=1e-4)


def test_sdxl_loras_are_those_of_a_cpu() -> None:
    pipeline = tiny_xl_pipeline(context_length=24)
    data = [with_added(concept(slug)) for slug in ("cat", "dog")]
    pipeline.unet.double()
    expected = train(pipeline, data)
    found = train(on_gpu(pipeline), data)
    for slug in expected:
        assert_same(found[slug], expected[slug], atol=1e-4)


def test_pictures_are_those_of_a_cpu(pipeline: Any) -> None:
    """Noise is drawn on the CPU wherever the model is: seeds mean the same."""
    prompts, seeds = ["a cat", "adam driver", "a dog in the park"], [1, 2, 3]
    expected = sample(pipeline, prompts, seeds, DDIM)
    found = sample(pipeline.to("cuda"), prompts, seeds, DDIM)
    assert np.abs(expected.astype(int) - found.astype(int)).max() <= 2


def test_a_pipeline_in_memory_is_erased_where_it_is(pipeline: Any) -> None:
    pipeline.to("cuda")
    before = state(pipeline)
    done = erased(pipeline, ["Adam Driver", "Amy Adams"], preserve=["Amy Poehler"])
    assert changed(before, pipeline) == set(done.weights)
    assert {each.device.type for each in pipeline.unet.parameters()} == {"cuda"}
    done.restore()
    assert not changed(before, pipeline)
