"""Training of LoRAs in less memory: by checkpointing, and on models in half precision."""

import shutil
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch

from mace_exp.methods import optimization
from mace_exp.methods.mace import step
from mace_exp.methods.mace.lora import initial_lora
from mace_exp.methods.mace.step import lora_optimizer, lora_step, lora_training, noise_scheduler
from mace_exp.methods.mace.training import draw_batch
from mace_exp.runs import cache
from mace_exp.runs.record import Tracker
from mace_exp.utils.seeding import generator
from tests.lora_training import (
    CONCEPTS,
    LENGTH,
    SHAPE,
    TRAINING,
    assert_same,
    concept,
    train,
)
from tests.lora_training import pipeline as pipeline
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

CHECKPOINTED = replace(TRAINING, gradient_checkpointing=True)
LAST_VALUES = "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_v"
QUERIES = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"


def forwards(unet, train):
    """Return what `train()` returns, and how often a layer inside a block ran meanwhile."""
    calls = []
    layer = unet.get_submodule(QUERIES)
    hook = layer.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        return train(), calls
    finally:
        hook.remove()


@pytest.mark.parametrize("prior", [False, True])
def test_checkpointing_runs_blocks_twice_and_changes_no_gradient(pipeline, prior):
    """The attention is seen twice too: its loss is that of one forward, with its gradient."""
    unet = pipeline.unet.double()
    data = [concept("cat", prior=prior), concept("dog", 5, prior=prior)]
    rows, again = [], []
    plain, once = forwards(unet, lambda: train(pipeline, data, on_step=rows.append))
    checkpointed, twice = forwards(
        unet, lambda: train(pipeline, data, training=CHECKPOINTED, on_step=again.append)
    )
    assert (len(once), len(twice)) == (4, 8) and all(once + twice)
    for slug in plain:
        assert_same(plain[slug], checkpointed[slug])
    for first, second in zip(rows, again, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-12)
        assert first.layers == pytest.approx(second.layers, rel=1e-12)
        assert (first.prior_loss is None) == (not prior)
        assert (first.prior_loss or 0) == pytest.approx(second.prior_loss or 0, rel=1e-12)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-9)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_checkpointing_of_the_caller_comes_back(pipeline, before, wanted):
    unet = pipeline.unet.eval()
    if before:
        unet.enable_gradient_checkpointing()
    training = replace(TRAINING, gradient_checkpointing=wanted)
    kept = {name: dict(vars(module)) for name, module in unet.named_modules()}
    _, calls = forwards(unet, lambda: train(pipeline, CONCEPTS[:1], training=training))
    assert len(calls) == (8 if wanted else 4)
    for name, module in unet.named_modules():
        after = {key: value for key, value in vars(module).items() if "checkpointing" in key}
        assert after == {key: kept[name][key] for key in kept[name] if "checkpointing" in key}
    assert unet.is_gradient_checkpointing == before


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_loras_of_half_precision_models_are_trained_in_float32(dtype, gradient_checkpointing):
    whole, half = [], []
    train(tiny_pipeline(context_length=LENGTH), CONCEPTS, on_step=whole.append)
    pipeline = tiny_pipeline(context_length=LENGTH)
    pipeline.unet.to(dtype)
    training = replace(TRAINING, gradient_checkpointing=gradient_checkpointing)
    loras = train(pipeline, CONCEPTS, training=training, on_step=half.append)
    for lora in loras.values():
        for pair in lora.factors.values():
            assert pair.down.dtype == pair.up.dtype == torch.float32
            assert pair.down.isfinite().all() and pair.up.isfinite().all()
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {dtype}
    for first, second in zip(whole, half, strict=True):  # bfloat16 keeps 2 to 3 digits
        assert second.loss == pytest.approx(first.loss, rel=0.02)


def faint_gradient(batch, dtype):
    """Return the gradient of the last layer's values in one step: the attention loss does not reach
    them, and the denoising error on prior images hardly weighs anything here."""
    pipeline = tiny_pipeline(context_length=LENGTH)
    unet, noise = pipeline.unet.to(dtype), noise_scheduler(pipeline.scheduler)
    with lora_training(unet, [initial_lora(unet, SHAPE, 0, "cat")]) as modules:
        optimizer = lora_optimizer(modules, 0.1)
        lora_step(unet, optimizer, [batch], noise=noise, max_grad_norm=1e9, prior_weight=1e-5)
        gradient = modules[LAST_VALUES].up.grad
    assert gradient is not None
    return gradient.double()


def test_faint_gradients_survive_float16(monkeypatch):
    batch = draw_batch(concept("cat", prior=True), 2, TRAINING.density, generator(0))
    exact, scaled = (faint_gradient(batch, dtype) for dtype in (torch.float32, torch.float16))
    monkeypatch.setattr(optimization, "FLOAT16_SCALES", (1.0,))
    lost = faint_gradient(batch, torch.float16)
    assert (scaled - exact).norm() < 0.1 * exact.norm()
    assert (lost - exact).norm() > 0.3 * exact.norm()


def test_a_scale_that_overflows_is_lowered_for_good(monkeypatch):
    """And leaves the LoRAs that the lower one gives from the start."""
    tried, found = [], []
    clip = step.clip_each

    def watched(factors, max_norm, *, scale):
        tried.append(scale)
        return clip(factors, max_norm, scale=scale)

    monkeypatch.setattr(step, "clip_each", watched)
    for scales in [(1024.0,), (2.0**24, 1024.0)]:
        monkeypatch.setattr(optimization, "FLOAT16_SCALES", scales)
        pipeline = tiny_pipeline(context_length=LENGTH)
        pipeline.unet.half()
        found.append(train(pipeline, CONCEPTS))
    assert tried == [1024.0] * TRAINING.steps + [2.0**24] + [1024.0] * TRAINING.steps
    for slug, lora in found[0].items():
        assert_same(lora, found[1][slug], atol=0)


def test_a_gradient_that_is_not_finite_is_refused_and_changes_nothing(pipeline):
    unet, noise = pipeline.unet, noise_scheduler(pipeline.scheduler)
    batch = draw_batch(CONCEPTS[0], 2, TRAINING.density, generator(0))
    broken = replace(batch, latents=batch.latents * float("nan"))
    lora = initial_lora(unet, SHAPE, 0, "cat")
    with lora_training(unet, [lora]) as modules:
        optimizer = lora_optimizer(modules, 0.1)
        with pytest.raises(ValueError, match="gradient is not finite with model.dtype = float32"):
            lora_step(unet, optimizer, [broken], noise=noise)
        assert all(
            torch.equal(module.down[0], lora.factors[path].down) for path, module in modules.items()
        )


class Rows(Tracker):
    """Keeps which steps are logged."""

    def __init__(self):
        super().__init__(None)
        self.steps = []

    def log(self, event, values, step=None):
        if event == "lora":
            self.steps.append((values["concept"], values["lora/step"]))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three concepts, and a function that trains their LoRAs: the rest is read from the cache."""
    folder, model = tmp_path_factory.mktemp("three"), tiny_pipeline()
    names = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams,Adam Sandler]")
    few = (*FEW, "masks=none", "evaluation=none", "lora.snapshots=0", "lora.batch_size=1")

    def trained(count: str, *, kept: bool = False) -> tuple[Any, list[Any]]:
        if not kept:
            shutil.rmtree(folder / "cache" / "loras", ignore_errors=True)
        count = f"lora.concepts_per_batch={count}"
        recipe = recipe_in(folder, *names, *few, "judge=none", count, pipeline=model)
        tracker: Any = Rows()
        recipe.context = replace(recipe.context, tracker=tracker)
        method: Any = recipe.method
        return method.loras.value.loras, tracker.steps

    return model.unet, trained


@pytest.mark.parametrize(("asked", "failing_step"), [("3", 0), ("auto", 1)])
def test_loras_that_do_not_fit_together_are_trained_in_smaller_batches(
    three, caplog, asked, failing_step
):
    """The same to the bit as with the smaller batch from the start; each step is logged once."""
    (unet, trained), sizes = three, []
    expected, _ = trained("1")

    def small(module, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 1 and len(sizes) > failing_step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = unet.register_forward_pre_hook(small)
    try:
        loras, steps = trained(asked)
    finally:
        hook.remove()
    assert sizes == [3] * (1 + failing_step) + [1, 1] * 3
    for slug, lora in expected.items():
        assert_same(loras[slug], lora, atol=0)
    assert sorted(steps) == sorted((slug, step) for slug in expected for step in range(2))
    warned = "out of memory with 3 in a batch: continuing with lora.concepts_per_batch = 1"
    assert caplog.text.count("out of memory") == 1 and warned in caplog.text


@pytest.mark.parametrize("stored", [0, 1, 2, 3])
def test_loras_trained_together_are_the_same_to_the_bit_after_a_kill_between_two(
    three, monkeypatch, stored
):
    """The last digits of a LoRA depend on those that it is trained with."""
    unet, trained = three
    expected, _ = trained("3")
    move, moved, batches = cache._move, [], []

    def killed(waiting, entry):
        if len(moved) == stored:
            raise KeyboardInterrupt
        moved.append(entry)
        move(waiting, entry)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(cache, "_move", killed)
        trained("3")
    hook = unet.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    try:
        loras, _ = trained("3", kept=True)
    finally:
        hook.remove()
    assert len(moved) == stored and not batches  # none is trained again
    for slug, lora in expected.items():
        assert_same(loras[slug], lora, atol=0)
