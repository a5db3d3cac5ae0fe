"""Keys of results: each setting changes exactly those of what is made downstream of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mace_exp.models.fingerprints import text_fingerprint
from mace_exp.models.projections import projection_weights
from mace_exp.preservation.statistics import PreservationStatistics
from mace_exp.recipe import Recipe
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

PEOPLE = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]", "judge=none")
Build = Callable[..., Recipe]

IMAGES = {"images", "masks", "loras", "edit", "samples", "metrics"}
MASKS = IMAGES - {"images"}
LORAS = MASKS - {"masks"}
EDIT = LORAS - {"loras"}
SAMPLES = EDIT - {"edit"}
REFINED = {"refinement"} | LORAS
PROMPTS = IMAGES | REFINED


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def build(pipeline: Any, tmp_path: Path) -> Build:
    def recipe(*more: str, pipeline: Any = pipeline) -> Recipe:
        return recipe_in(tmp_path, *PEOPLE, *FEW, *more, pipeline=pipeline)

    return recipe


def keys(recipe: Recipe) -> dict[str, str]:
    """The key of every result of the default method."""
    method: Any = recipe.method
    found = {
        "images": recipe.images,
        "prior_images": recipe.prior_images,
        "masks": recipe.masks,
        **{f"{name} statistics": each for name, each in recipe.preservation.terms.items()},
        "refinement": method.refinement,
        "loras": method.loras,
        "edit": recipe.edit,
        "samples": recipe.samples,
        "metrics": recipe.metrics,
    }
    return {name: result.key for name, result in found.items()}


def changed(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@pytest.fixture(scope="module")
def usual(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The keys that all settings below are compared with."""
    return keys(recipe_in(tmp_path_factory.mktemp("usual"), *PEOPLE, *FEW, pipeline=pipeline))


DOWNSTREAM: dict[str, set[str]] = {
    "prompts.count=4": REFINED,  # two images take the first two sentences of either
    "anchors.person=a woman": PROMPTS - {"images"},  # masks compare with the anchor's prompt
    "images.per_concept=3": IMAGES,
    "images.seed=5": IMAGES,
    "sampling.steps=3": IMAGES,
    "sampling.guidance=2": IMAGES,
    "sampling.batch_size=5": set(),
    "masks.threshold=0.5": MASKS,
    "masks=whole": MASKS,
    "masks=none": MASKS,
    "seed=1": IMAGES,
    "preservation.prior.count=9": {"prior statistics"} | REFINED,
    "preservation.prior.captions=[a horse at night]": {"prior statistics"} | REFINED,
    "preservation.prior.unit=2": REFINED,
    "kept.people=[Amy Schumer]": {"domain statistics"} | REFINED,
    "cfr.closeness=2e-2": REFINED,
    "cfr.all_words=true": REFINED,
    "cfr.prior_weight=2": REFINED,
    "cfr.domain_weight=0": REFINED,
    "method.refinement=false": REFINED,
    "lora.rank=2": LORAS,
    "lora.learning_rate=0.5": LORAS,
    "lora.end_of_text=false": LORAS,
    "lora.per_concept=false": LORAS,
    "lora.concepts_per_batch=2": set(),
    "lora.gradient_checkpointing=true": set(),
    "lora.snapshots=1": set(),
    "fusion.closeness=5": EDIT,
    "fusion.prior_weight=5": EDIT,
    "method.merge=sum": EDIT,
    "evaluation.seed=3": SAMPLES,
    "evaluation.images_per_part=3": SAMPLES,
    "evaluation.attention_maps=1": set(),
    "save=pipeline": set(),
    "device=cpu": set(),
}


@pytest.mark.parametrize("setting", DOWNSTREAM)
def test_a_setting_changes_exactly_the_keys_downstream_of_it(
    build: Build, usual: dict[str, str], setting: str
) -> None:
    assert changed(usual, keys(build(setting))) == DOWNSTREAM[setting]


def test_one_concept_s_settings_change_its_results_alone(build: Build) -> None:
    usual = build()
    other = build("++overrides={Amy Adams: {lora.rank: 2, images.seed: 7}}")
    for name in ("images", "masks"):
        parts = changed(getattr(usual, name).parts, getattr(other, name).parts)
        assert parts == {"amy-adams"}
    one, two = (recipe.method.loras.parts for recipe in (usual, other))  # type: ignore[attr-defined]
    assert changed(one, two) == {"amy-adams"}


def test_the_order_of_the_concepts_changes_no_key_of_the_refinement(
    build: Build, usual: dict[str, str]
) -> None:
    turned = build("concepts.names=[Amy Adams,Adam Driver]")
    assert changed(usual, keys(turned)) <= {"samples", "metrics"}


def test_nothing_is_made_for_a_key(build: Build) -> None:
    recipe = build()
    keys(recipe)
    assert recipe.context.cache.made == {}


def test_keys_hold_no_floats(build: Build) -> None:
    """The last digits of a result are not those of another machine or number of threads."""
    one, two = build(), build()
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    method: Any = two.method
    object.__setattr__(method.refinement, "make", lambda: torch.eye(32) * (1 + 1e-7 * noise))
    assert keys(one) == keys(two)


def test_a_unit_and_a_weight_that_make_one_product_make_one_key(build: Build) -> None:
    one, two = build("preservation.prior.unit=4"), build("cfr.prior_weight=1200")
    assert keys(one)["refinement"] == keys(two)["refinement"]


def test_a_given_sum_is_known_by_its_content(pipeline: Any, build: Build, tmp_path: Path) -> None:
    """Two files may name the same captions, such as those of a model in half precision."""
    found = set()
    for name, scale in (("a", 1.0), ("again", 1.0), ("b", 1.001)):
        total = scale * torch.eye(32, dtype=torch.float64)
        file = tmp_path / f"{name}.safetensors"
        PreservationStatistics(total, 8, text_fingerprint(pipeline), "0" * 32).save(file)
        found.add(keys(build(f"preservation.prior.cache={file}"))["refinement"])
    assert len(found) == 2


def test_the_weights_that_are_edited_are_in_the_keys(build: Build, usual: dict[str, str]) -> None:
    other = tiny_pipeline()
    for weight in projection_weights(other.unet).values():
        weight.data *= 1.1
    found = changed(usual, keys(build(pipeline=other)))
    assert found == IMAGES, "the text encoder, and so the refinement, is the same"


def test_the_type_that_the_model_computes_in_is_in_the_keys(
    build: Build, usual: dict[str, str]
) -> None:
    """A fingerprint hashes weights rounded to float16: it can't tell."""
    found = changed(usual, keys(build("model.dtype=bfloat16")))
    assert found == PROMPTS | {"prior statistics", "domain statistics"}


def test_pictures_of_the_native_size_are_known_by_it(build: Build) -> None:
    """Which is in no weight: a folder may be given another."""

    def key(side: int, *more: str) -> str:
        other = tiny_pipeline()
        other.unet.register_to_config(sample_size=side)
        native = ("sampling.height=null", "sampling.width=null")
        return keys(build(*native, *more, pipeline=other))["images"]

    assert key(8) != key(16)
    assert key(8) == key(16, "sampling.height=32", "sampling.width=32"), "one size, one key"
