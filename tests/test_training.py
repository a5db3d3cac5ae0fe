"""Training of LoRAs: together is as alone, as peft would, and the UNet comes back untouched."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from mace_exp.methods.mace.attention_loss import AttentionLoss, AttentionTarget
from mace_exp.methods.mace.lora import initial_lora
from mace_exp.methods.mace.step import (
    Batch,
    clip_each,
    lora_optimizer,
    lora_step,
    lora_training,
    noise_scheduler,
)
from mace_exp.methods.mace.training import JointData, draw_batch
from mace_exp.models.attention import visible_attention
from mace_exp.models.projections import projection_weights
from mace_exp.utils.seeding import generator
from tests.lora_training import (
    CONCEPTS,
    LENGTH,
    SHAPE,
    SHAPES,
    TRAINING,
    assert_same,
    concept,
    train,
)
from tests.lora_training import pipeline as pipeline
from tests.tiny import tiny_pipeline


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_together_is_as_alone(pipeline, shape):
    together, alone = [], []
    pipeline.unet.double()
    joint = train(pipeline, CONCEPTS, shape, on_step=together.append)
    for data in CONCEPTS:
        [single] = train(pipeline, [data], shape, on_step=alone.append).values()
        assert_same(joint[data.slug], single)
    together.sort(key=lambda row: [data.slug for data in CONCEPTS].index(row.slug))
    for first, second in zip(together, alone, strict=True):
        assert (first.slug, first.step, first.timestep) == (
            second.slug,
            second.step,
            second.timestep,
        )
        assert first.loss == pytest.approx(second.loss, rel=1e-9)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-9)
        assert first.layers == pytest.approx(second.layers, rel=1e-9)


def test_grouping_and_order_do_not_matter(pipeline):
    pipeline.unet.double()
    whole = train(pipeline, CONCEPTS)
    parts = train(pipeline, CONCEPTS[:0:-1]) | train(pipeline, CONCEPTS[:1])
    assert set(whole) == set(parts)
    for slug in whole:
        assert_same(whole[slug], parts[slug])


def test_it_trains_as_peft_does(pipeline):
    """The same draws through a peft adapter, torch's own clipping and one optimiser."""
    unet, data = pipeline.unet.double(), CONCEPTS[0]
    [ours] = train(pipeline, [data]).values()
    start = initial_lora(unet, SHAPE, TRAINING.seed, data.slug)
    unet.requires_grad_(False)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=list(start.factors))
    inject_adapter_in_model(config, unet)
    layers = {path: unet.get_submodule(path) for path in start.factors}
    for path, layer in layers.items():
        layer.lora_A["default"].weight.data = start.factors[path].down.double()
        layer.lora_B["default"].weight.data = start.factors[path].up.double()
    trainable = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.01)
    source, noise = (
        generator(TRAINING.seed, "lora", data.slug, "steps"),
        noise_scheduler(pipeline.scheduler),
    )
    for _ in range(TRAINING.steps):
        batch = draw_batch(data, 2, TRAINING.density, source)
        loss = AttentionLoss([batch.target], (8, 8))
        with visible_attention(unet, loss):
            noisy = noise.add_noise(batch.latents, batch.noise, batch.timesteps)
            unet(noisy.double(), batch.timesteps, batch.states.double())
        optimizer.zero_grad()
        loss.total().sum().backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
    for path, layer in layers.items():
        for ours_factor, theirs in (
            (ours.factors[path].down, layer.lora_A["default"].weight),
            (ours.factors[path].up, layer.lora_B["default"].weight),
        ):
            torch.testing.assert_close(ours_factor, theirs.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("broken", [False, True])
def test_the_unet_comes_back_untouched(pipeline, broken):
    unet = pipeline.unet.train()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    processors = {name: id(value) for name, value in unet.attn_processors.items()}
    refined = {name: weight + 0.1 for name, weight in projection_weights(unet).items()}

    def on_step(row):
        if broken and row.step == 1:
            raise KeyboardInterrupt

    if broken:
        with pytest.raises(KeyboardInterrupt):
            train(pipeline, CONCEPTS, weights=refined, on_step=on_step)
    else:
        train(pipeline, CONCEPTS, weights=refined, on_step=on_step)
    after = unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: id(value) for name, value in unet.attn_processors.items()} == processors
    assert unet.training and all(p.requires_grad and p.grad is None for p in unet.parameters())


def test_it_trains_under_the_refined_weights(pipeline):
    refined = {name: 2 * weight for name, weight in projection_weights(pipeline.unet).items()}
    rows, other = [], []
    train(pipeline, CONCEPTS[:1], on_step=rows.append)
    train(pipeline, CONCEPTS[:1], weights=refined, on_step=other.append)
    assert rows[0].loss != pytest.approx(other[0].loss, rel=1e-4)


def test_attention_to_the_concept_fades(pipeline):
    rows = []
    longer = replace(TRAINING, steps=20, learning_rate=6e-2)
    train(pipeline, CONCEPTS[:1], training=longer, on_step=rows.append)
    assert rows[-1].loss < 0.5 * rows[0].loss
    assert [row.step for row in rows] == list(range(20))
    assert rows[0].loss == pytest.approx(sum(rows[0].layers.values()), rel=1e-5)


def test_values_of_the_last_layer_stay_at_their_start(pipeline):
    """The attention loss does not reach them, and no weight decay acts on what has no gradient."""
    [lora] = train(pipeline, CONCEPTS[:1]).values()
    start = initial_lora(pipeline.unet, SHAPE, TRAINING.seed, "cat")
    last = "up_blocks.2.attentions.1.transformer_blocks.0.attn2"
    assert torch.equal(lora.factors[f"{last}.to_v"].down, start.factors[f"{last}.to_v"].down)
    assert not torch.equal(lora.factors[f"{last}.to_k"].down, start.factors[f"{last}.to_k"].down)


def losses(unet, loras, batches, noise):
    """Return attention losses [C] and errors on prior images [C] of a step that changes nothing."""
    with lora_training(unet, loras) as modules:
        optimizer = lora_optimizer(modules, learning_rate=0.0)
        result = lora_step(unet, optimizer, batches, noise=noise)
    return torch.stack(list(result.layers.values())).sum(dim=0), result.prior


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_prior_images_add_their_denoising_error(prediction_type):
    pipeline = tiny_pipeline(context_length=LENGTH, prediction_type=prediction_type)
    unet, noise = pipeline.unet, noise_scheduler(pipeline.scheduler)
    data = [concept("cat", prior=True), concept("dog", prior=True)]
    batches = [draw_batch(d, 2, TRAINING.density, generator(0, d.slug)) for d in data]
    loras = [initial_lora(unet, SHAPE, 0, d.slug) for d in data]
    attention, prior = losses(unet, loras, batches, noise)
    for index, batch in enumerate(batches):
        inputs = [t[2:] for t in (batch.latents, batch.noise, batch.timesteps, batch.states)]
        latents, drawn, timesteps, states = inputs
        wanted = {"epsilon": drawn, "v_prediction": noise.get_velocity(latents, drawn, timesteps)}
        with torch.no_grad():
            predicted = unet(noise.add_noise(latents, drawn, timesteps), timesteps, states).sample
        error = (predicted - wanted[prediction_type]).square().mean()
        assert prior is not None
        torch.testing.assert_close(prior[index], error, rtol=1e-4, atol=1e-6)
        first = Batch(
            latents=batch.latents[:2],
            noise=batch.noise[:2],
            timesteps=batch.timesteps[:2],
            states=batch.states[:2],
            target=batch.target,
        )
        alone, none = losses(unet, loras[index : index + 1], [first], noise)
        assert none is None
        torch.testing.assert_close(attention[index], alone[0], rtol=1e-4, atol=1e-5)


def test_prior_images_are_trained_with(pipeline):
    rows = []
    train(pipeline, [concept("cat", prior=True)], on_step=rows.append)
    assert all(row.loss == pytest.approx(sum(row.layers.values()) + row.prior_loss) for row in rows)


def test_noise_is_added_at_any_timestep(pipeline):
    """A solver's own `add_noise` knows the timesteps of its inference schedule only."""
    pipeline.scheduler.set_timesteps(5)
    ones, timesteps = torch.ones(2, 4, 8, 8), torch.tensor([3, 317])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = (1 - betas).cumprod(dim=0)[timesteps]
    scale = alphas.sqrt() + (1 - alphas).sqrt()
    noisy = noise_scheduler(pipeline.scheduler).add_noise(ones, ones, timesteps)
    torch.testing.assert_close(noisy[:, 0, 0, 0], scale)


def test_gradients_are_clipped_per_concept():
    factors = [torch.nn.Parameter(torch.zeros(2, 3, 4)) for _ in range(3)]
    gradients = [torch.randn(2, 3, 4) for _ in range(2)]
    for factor, gradient in zip(factors, gradients, strict=False):
        gradient[1] *= 1e-3
        factor.grad = gradient
    before = torch.stack(gradients)
    norms = clip_each(factors, 1.0)
    after = torch.stack(gradients)
    torch.testing.assert_close(norms, before.square().sum(dim=(0, 2, 3)).sqrt())
    assert float(after[:, 0].norm()) == pytest.approx(1.0, rel=1e-4)
    assert torch.equal(after[:, 1], before[:, 1]) and factors[2].grad is None


def test_data_that_do_not_fit_are_refused(pipeline):
    with pytest.raises(ValueError, match="cat: latents, states, positions and masks number"):
        replace(CONCEPTS[0], masks=torch.ones(1, 32, 32))
    with pytest.raises(ValueError, match="same slug"):
        train(pipeline, [CONCEPTS[0], CONCEPTS[0]])
    large = replace(concept("large"), latents=torch.randn(3, 4, 16, 16))
    with pytest.raises(ValueError, match="latents of one size"):
        train(pipeline, [CONCEPTS[0], large])


def test_a_joint_lora_sees_one_concept_a_batch():
    """Each concept as often, however many images it has; each batch of one concept alone."""
    joint = JointData(
        "all", [concept("cat", 1), concept("monet", 3, masked=False), concept("dog", 9)]
    )
    source, seen = generator(0), [0, 0, 0]
    for _ in range(300):
        batch = draw_batch(joint, 4, TRAINING.density, source)
        owners = [
            index
            for index, part in enumerate(joint.parts)
            if all((part.latents == latent).flatten(1).all(1).any() for latent in batch.latents)
        ]
        [owner] = owners
        assert (batch.target.masks is None) == (joint.parts[owner].masks is None)
        seen[owner] += 1
    assert min(seen) > 70  # 100 each, give or take 8: an unlucky 70 is beyond three deviations


def test_a_joint_lora_is_trained_as_any_other(pipeline):
    pipeline.unet.double()
    rows = []
    train(pipeline, [JointData("all", CONCEPTS)], on_step=rows.append)
    assert [(row.slug, row.step) for row in rows] == [("all", step) for step in range(4)]
    with pytest.raises(ValueError, match="at least one concept"):
        JointData("all", [])
    with pytest.raises(ValueError, match="prior images for all"):
        train(pipeline, [JointData("all", [concept("cat"), concept("dog", prior=True)])])


@pytest.mark.parametrize("prior_weight", [0.5, 4.0])
def test_the_prior_error_is_weighed(pipeline, prior_weight):
    rows = []
    training = replace(TRAINING, prior_weight=prior_weight)
    train(pipeline, [concept("cat", prior=True)], training=training, on_step=rows.append)
    for row in rows:
        assert row.loss == pytest.approx(sum(row.layers.values()) + prior_weight * row.prior_loss)


def test_whole_masks_train_as_none_do(pipeline):
    pipeline.unet.double()
    none = concept("cat", masked=False)
    whole = replace(none, masks=torch.ones(3, 32, 32))
    [first], [second] = (train(pipeline, [data]).values() for data in (none, whole))
    assert_same(first, second)


def test_batches_are_drawn_from_the_generator_alone():
    first, again = (draw_batch(CONCEPTS[0], 4, TRAINING.density, generator(1)) for _ in range(2))
    assert torch.equal(first.noise, again.noise) and torch.equal(first.timesteps, again.timesteps)
    assert isinstance(first.target, AttentionTarget) and len(first.latents) == 4
