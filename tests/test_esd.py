"""ESD-x: what its equation says, in float64; the original model stays; seeds decide everything."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from mace_exp.export import export
from mace_exp.methods.esd.guidance import negatively_guided
from mace_exp.methods.esd.training import (
    EsdConcept,
    EsdRow,
    EsdTrainer,
    EsdTraining,
    draw_update,
)
from mace_exp.models.conditions import condition_on, unconditional
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.projections import ALL_PROJECTIONS, cross_attention_projections
from mace_exp.models.schedulers import scheduler_for
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline
from tests.whole_run import PEOPLE, Run, read, rows

TEXTS = {"adam-driver": ["a photo of Adam Driver", "Adam Driver"], "amy-adams": ["Amy Adams"]}
SHAPE = (4, 8, 8)
TRAINING = EsdTraining(steps=4, learning_rate=1e-3, eta=1.5, batch_size=2, shape=SHAPE, seed=3)
TWO = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]", "judge=none", "tracking=none")
SHORT = (
    *("method=esd_x", "method.updates=4", "method.batch_size=1"),
    *("method.sampling_steps=2", "evaluation=none", "prompts.count=2"),
)


def model(prediction_type: str = "epsilon") -> Any:
    return tiny_pipeline(context_length=24, prediction_type=prediction_type)


def sampler_of(pipeline: Any, steps: int = 3, guidance: float = 2.0) -> Sampler:
    scheduler = scheduler_for(pipeline, "ddim")
    scheduler.set_timesteps(steps)
    return Sampler(scheduler, unconditional(pipeline, torch.empty(SHAPE)), guidance)


def trainer_of(pipeline: Any, training: EsdTraining = TRAINING, **more: Any) -> EsdTrainer:
    """A trainer of two concepts, whose target is the unconditional prediction."""
    sampler = sampler_of(pipeline, **more)
    concepts = [
        EsdConcept(slug, condition_on(pipeline, texts, torch.empty(SHAPE)), sampler.unconditional)
        for slug, texts in TEXTS.items()
    ]
    return EsdTrainer(pipeline.unet, concepts, sampler, training)


def trained(pipeline: Any, training: EsdTraining = TRAINING) -> tuple[EsdTrainer, list[EsdRow]]:
    made: list[EsdRow] = []
    trainer = trainer_of(pipeline, training)
    trainer.train(training.steps, made.append)
    return trainer, made


def noise_of(output: Tensor, noised: Tensor, timestep: int, pipeline: Any) -> Tensor:
    """Return the predicted noise, whatever the model predicts."""
    if pipeline.scheduler.config.prediction_type == "epsilon":
        return output
    signal = pipeline.scheduler.alphas_cumprod.double()[timestep]
    return signal.sqrt() * output + (1 - signal).sqrt() * noised


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_gradient_is_that_of_the_equation(prediction_type: str) -> None:
    """Of the distance between predictions of noise, also where the model predicts v: there the
    trainer's is larger by 1 / alpha^2."""
    pipeline = model(prediction_type)
    pipeline.unet.double()
    trainer, (row,) = trained(pipeline, replace(TRAINING, steps=1))
    draw = draw_update(0, trainer.concepts, trainer.sampler, TRAINING)
    unet = copy.deepcopy(pipeline.unet)  # at the first step the edited model is the original

    def predicted(condition: Any) -> Tensor:
        output = unet(noised.double(), draw.timestep, condition.states.double()).sample
        return noise_of(output, noised, draw.timestep, pipeline)

    noised = trainer.sampler.partly_denoised(unet, draw.noise, draw.concept, draw.done)
    with torch.no_grad():
        concept, nothing = predicted(draw.concept), predicted(draw.target)
    expected = (predicted(draw.concept) - (nothing - 1.5 * (concept - nothing))).square().mean()
    expected.backward()
    signal = pipeline.scheduler.alphas_cumprod.double()[draw.timestep]
    factor = 1.0 if prediction_type == "epsilon" else float(1 / signal)
    assert row.loss == pytest.approx(factor * float(expected.detach()), rel=1e-5)
    for path, layer in trainer.layers.items():
        for name, parameter in layer.named_parameters():
            wanted = unet.get_parameter(f"{path}.{name}").grad
            assert parameter.grad is not None and wanted is not None
            torch.testing.assert_close(parameter.grad, factor * wanted, rtol=1e-5, atol=1e-9)


def test_all_projections_of_cross_attention_are_trained_and_nothing_else() -> None:
    pipeline = model()
    trainer, _ = trained(pipeline)
    of_attn2 = {n for n, _ in pipeline.unet.named_parameters() if ".attn2." in n}
    assert set(trainer.weights()) == of_attn2
    originals = pipeline.unet.state_dict()
    assert all(not torch.equal(w, originals[n]) for n, w in trainer.weights().items())


def test_without_negative_guidance_the_optimum_is_the_targets_prediction() -> None:
    """There the gradient vanishes, but for rounding; from elsewhere the training goes there."""
    pipeline = model()
    pipeline.unet.double()
    training = replace(TRAINING, eta=0.0, steps=30, learning_rate=3e-2)
    trainer = trainer_of(pipeline, training)
    nothing = trainer.sampler.unconditional
    trainer.concepts = [EsdConcept("nothing", nothing, nothing)]
    made: list[EsdRow] = []
    trainer.train(3, made.append)
    assert made[0].loss < 1e-25 and made[0].grad_norm < 1e-10
    assert max(row.loss for row in made) < 1e-10, "Adam lets rounding grow, by its learning rate"
    _, made = trained(pipeline, training)
    first, last = (sum(row.loss for row in part) for part in (made[:6], made[-6:]))
    assert last < 0.5 * first


def test_negative_guidance_goes_on_from_the_target_by_eta() -> None:
    concept, target = torch.tensor([3.0]), torch.tensor([1.0])
    assert [float(negatively_guided(concept, target, eta)) for eta in (0, 1, 2)] == [1, -1, -3]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_original_model_is_not_touched(interrupted: bool) -> None:
    pipeline = model()
    unet = pipeline.unet.train()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    processors = {name: id(value) for name, value in unet.attn_processors.items()}
    trainer = trainer_of(pipeline)

    def on_step(row: EsdRow) -> None:
        if interrupted and row.step == 1:
            raise KeyboardInterrupt

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            trainer.train(4, on_step)
    else:
        trainer.train(4, on_step)
    after = unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: id(value) for name, value in unet.attn_processors.items()} == processors
    assert unet.training and all(p.requires_grad and p.grad is None for p in unet.parameters())


def test_seeds_decide_everything() -> None:
    pipeline, state = model(), torch.get_rng_state()
    (one, first), (two, second) = trained(pipeline), trained(pipeline)
    other, _ = trained(pipeline, replace(TRAINING, seed=4))
    assert first == second and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(w, two.weights()[n]) for n, w in one.weights().items())
    assert any(not torch.equal(w, other.weights()[n]) for n, w in one.weights().items())


def test_every_round_visits_each_concept_once() -> None:
    trainer = trainer_of(model())
    slugs = [draw_update(s, trainer.concepts, trainer.sampler, TRAINING).slug for s in range(40)]
    rounds = [slugs[at : at + 2] for at in range(0, 40, 2)]
    assert all(set(each) == set(TEXTS) for each in rounds)
    assert {tuple(each) for each in rounds} == {tuple(TEXTS), tuple(reversed(TEXTS))}


@pytest.mark.parametrize("build", [model, tiny_xl_pipeline])
def test_all_steps_of_sampling_are_the_pipelines_own(build: Callable[[], Any]) -> None:
    """Latents after the last step: under guidance, with what SDXL reads besides."""
    pipeline, guidance = build(), 3.0
    sampler = sampler_of(pipeline, 3, guidance)
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    pipeline.scheduler = scheduler_for(pipeline, "ddim")
    expected = pipeline(
        "Amy Adams",
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=noise,
        output_type="latent",
    ).images
    condition = condition_on(pipeline, ["Amy Adams"], noise)
    found = sampler.partly_denoised(pipeline.unet, noise, condition, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_a_half_precision_model_are_trained_in_float32() -> None:
    pipeline = model()
    pipeline.unet.to(torch.bfloat16)
    trainer, (row,) = trained(pipeline, replace(TRAINING, steps=1, batch_size=1))
    assert {each.dtype for each in trainer.weights().values()} == {torch.float32}
    assert all(each.isfinite().all() for each in trainer.weights().values()) and row.grad_norm > 0
    assert {each.dtype for each in pipeline.unet.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("target", "text"), [("unconditional", "sentences"), ("anchor", "names")])
def test_sdxl_is_edited(tmp_path: Path, target: str, text: str) -> None:
    of_text = SHORT if text == "sentences" else SHORT[:-1]
    chosen = (f"method.target={target}", f"method.text={text}")
    recipe = recipe_in(tmp_path, *TWO, *of_text, *chosen, pipeline=tiny_xl_pipeline())
    recipe.check()
    edit = recipe.edit.value.weights
    found = cross_attention_projections(recipe.context.model.pipeline.unet, ALL_PROJECTIONS)
    assert {name.rpartition(".")[0] for name in edit} == {f"unet.{path}" for path in found}
    assert all(weight.isfinite().all() for weight in edit.values())


def test_an_interrupted_training_goes_on_as_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = model()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    settings = (*TWO, *SHORT, "method.checkpoint_every=1")
    expected = recipe_in(tmp_path / "whole", *settings, pipeline=pipeline).edit.value.weights
    train, made = EsdTrainer.train, []

    def preempted(self: EsdTrainer, until: int, on_step: Callable[[EsdRow], object]) -> None:
        made.append(self.step)
        if self.step == 3 and made.count(3) == 1:
            raise KeyboardInterrupt
        train(self, until, on_step)

    monkeypatch.setattr(EsdTrainer, "train", preempted)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        recipe_in(cut, *settings, pipeline=pipeline).edit.value  # noqa: B018
    assert all(torch.equal(pipeline.unet.state_dict()[n], value) for n, value in before.items())
    assert not (cut / "edit.safetensors").exists()
    found = recipe_in(cut, *settings, pipeline=pipeline).edit.value.weights
    assert made == [0, 1, 2, 3, 3], "what was trained is not trained again"
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    entries = list((cut / "cache" / "esd_x").iterdir())
    assert len(entries) == 1, "the checkpoint is gone"


def test_a_run_draws_no_image_and_leaves_an_edit_that_can_be_exported(
    run: Run, arguments: list[str], tmp_path: Path
) -> None:
    arguments[:] = [
        each for each in arguments if not each.startswith(("lora", "images.", "preservation."))
    ]
    small = [each for each in SHORT if not each.startswith(("evaluation", "prompts"))]
    folder = run("esd", PEOPLE, *small, "judge=none")
    assert set(read(folder / "summary.json")["made"]) == {"esd_x", "samples", "edited"}
    stages = [row["stage"] for row in rows(folder, "stage")]
    assert stages[:2] == ["esd_x", "samples"]
    steps = {(row["concept"], row["esd_x/step"]) for row in rows(folder, "esd_x")}
    assert steps == set(product(("adam-driver", "amy-adams"), (0, 1)))
    assert "Training loss" in (folder / "report.html").read_text(encoding="utf-8")
    edit = load_file(folder / "edit.safetensors")
    assert {name.split(".attn2.")[1] for name in edit} == {
        *(f"{each}.weight" for each in ("to_q", "to_k", "to_v", "to_out.0")),
        "to_out.0.bias",
    }
    export(folder, tmp_path / "exported")
    for place in (folder / "erased", tmp_path / "exported"):
        unet = StableDiffusionPipeline.from_pretrained(place).unet.state_dict()
        assert all(torch.equal(unet[n.removeprefix("unet.")], w) for n, w in edit.items())
    again = run("again", PEOPLE, *small, "judge=none", "stages=[esd_x]")
    assert read(again / "summary.json")["made"] == {}
    assert len(rows(again, "esd_x")) == 4, "its curves are logged again"


def test_what_decides_the_edit_is_in_its_key(tmp_path: Path) -> None:
    pipeline = model()

    def key(*more: str) -> str:
        return recipe_in(tmp_path, *TWO, *SHORT, *more, pipeline=pipeline).edit.key

    usual = key()
    same = ("method.checkpoint_every=7", "sampling.steps=3", "anchors.person=a man")
    assert {key(each) for each in same} == {usual}
    others = ("method.negative_guidance=2", "method.learning_rate=0.1", "seed=1", "prompts.count=3")
    anchored = [key("method.target=anchor", *more) for more in ([], ["anchors.person=a man"])]
    keys = [usual, *anchored, *(key(each) for each in others)]
    assert len(set(keys)) == len(keys)


def test_more_steps_of_sampling_than_timesteps_are_refused(tmp_path: Path) -> None:
    settings = (*TWO, *SHORT, "method.sampling_steps=1001")
    with pytest.raises(ValueError, match=r"method.sampling_steps = 1001 .* at most 1000"):
        recipe_in(tmp_path, *settings, pipeline=model()).check()
