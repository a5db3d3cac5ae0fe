"""The script to read the method in: its edit is that of the framework, and it runs as its page
says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.from_scratch import mace
from experiments.from_scratch.pictures import KEPT, kept_people
from mace_exp import erase
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt, training_prompts
from mace_exp.methods.mace import fusion, refinement
from mace_exp.methods.mace.lora import Factors, Lora, initial_lora
from mace_exp.methods.mace.timesteps import focal_density
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from tests.fusing import added, fusion_sums

NAMES = ["Adam Driver", "Amy Adams"]
PEOPLE = [Concept(name, Kind.person, "a person") for name in NAMES]
STEPS, IMAGES, CAPTIONS = 2, 2, 60


@pytest.fixture(scope="module")
def prompts() -> dict[Concept, list[str]]:
    return {person: training_prompts(person, 8) for person in PEOPLE}


@pytest.fixture(scope="module")
def survives(encoder: Any) -> Tensor:
    return 3.0 * fusion.prompt_gram(encoder, ["a horse in the park", "Amy Poehler"])


@pytest.fixture(scope="module")
def transform(encoder: Any, prompts: dict[Concept, list[str]], survives: Tensor) -> Tensor:
    return mace.refine(encoder, prompts, survives)


def test_refinement_is_that_of_the_package(
    encoder: Any, prompts: dict[Concept, list[str]], survives: Tensor, transform: Tensor
) -> None:
    sums = refinement.PairSums.zeros(encoder.width)
    for person, texts in prompts.items():
        pairs = [refinement.PromptPair(text, anchor_prompt(text, person)) for text in texts]
        sums = sums + refinement.pair_sums(encoder, pairs)
    expected = refinement.refine(sums, closeness=mace.CLOSENESS, preserved=survives)
    assert float((expected - torch.eye(encoder.width)).norm()) > 0.01
    torch.testing.assert_close(transform, expected, rtol=1e-9, atol=1e-9)


def test_fusion_is_that_of_the_package(
    pipeline: Any,
    encoder: Any,
    prompts: dict[Concept, list[str]],
    survives: Tensor,
    transform: Tensor,
) -> None:
    """The script solves for the weight, the package for its change: the same to float64."""
    weights = {name: each.double() for name, each in projection_weights(pipeline.unet).items()}
    loras = [filled(initial_lora(pipeline.unet, mace.SHAPE, 0, each.slug)) for each in prompts]
    grams = [mace.second_moment(encoder, texts) for texts in prompts.values()]
    parts = [
        fusion_sums(encoder, texts, lora, transform)
        for texts, lora in zip(prompts.values(), loras, strict=True)
    ]
    total = added(*parts)
    expected = fusion.fuse(weights, transform, total, closeness=mace.CLOSENESS, preserved=survives)
    found = mace.fuse(weights, transform, loras, grams, survives)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        # Products of factors in float32 differ in the seventh digit.
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5)


def filled(start: Lora) -> Lora:
    """A LoRA that has learned something: B starts at zero."""
    source = torch.Generator().manual_seed(0)
    factors = {
        path: Factors(pair.down, torch.randn(pair.up.shape, generator=source))
        for path, pair in start.factors.items()
    }
    return Lora(factors, start.shape)


def test_timesteps_are_drawn_from_the_density_of_the_package() -> None:
    for timesteps in (1000, 100):
        assert torch.equal(mace.focal_density(timesteps), focal_density(timesteps))


def test_the_script_computes_the_edit_of_the_framework(tmp_path: Path) -> None:
    """From the names on: its own prompts, pictures, masks, statistics, LoRAs and closed forms."""
    found = mace.run(
        NAMES, steps=STEPS, images=IMAGES, captions=CAPTIONS, pictures=1, folder=tmp_path
    )
    assert {name: rate.count for name, rate in found.items()} == dict.fromkeys(NAMES, 1) | {KEPT: 2}
    assert (tmp_path / "grid.png").stat().st_size > 10_000
    edit, expected = load_file(tmp_path / "edit.safetensors"), framework_edit()
    assert edit.keys() == expected.keys()
    for name, (weight, original) in expected.items():
        moved = float((weight - original).norm())  # both are float32: 1e-6 of it measured
        assert float((edit[name] - weight).norm()) < 1e-4 * moved, name


def framework_edit() -> dict[str, tuple[Tensor, Tensor]]:
    """Return by parameter name the weight that `erase` leaves, and the original one."""
    settings = {
        "lora": "mini",
        "sampling": "mini",
        "kept": "mini_world",
        "images.per_concept": IMAGES,
        "preservation.domain_weight": mace.DOMAIN,
        "preservation.prior.count": CAPTIONS,
        "preservation.domain.count": CAPTIONS,
    }
    done = erase(
        load_pipeline(None, device="cpu"),
        NAMES,
        rank=mace.SHAPE.rank,
        steps=STEPS,
        preserve=kept_people(),
        settings=settings,
        progress=False,
    )
    names = (name.removeprefix("unet.") for name in done.weights)
    return {n: (done.weights[f"unet.{n}"], done.original[f"unet.{n}"]) for n in names}


def test_who_is_not_in_the_model_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names holds 'Nobody Known': .*identities.json"):
        mace.run(["Nobody Known"], folder=tmp_path)
    with pytest.raises(ValueError, match="names is empty"):
        mace.run([], folder=tmp_path)
