"""What entries of the cache are named by: all that decides them, and nothing that rounds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mace_exp.models.projections import projection_weights
from mace_exp.runs.cache import key_of

from mace_exp.config import composed_run
from mace_exp.models.fingerprints import text_fingerprint
from mace_exp.preservation.statistics import PreservationStatistics
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.record import Tracker
from mace_exp.stages.look import image_inputs
from mace_exp.stages.loras import shared_inputs
from mace_exp.stages.run import Run
from tests.tiny import tiny_pipeline

SMALL = (
    *("prompts.count=3", "preservation.prior.count=8", "preservation.domain.count=8"),
    *("cfr.closeness=1e-2", "cfr.prior_weight=1", "cfr.domain_weight=2", "tracking=none"),
)
Key = Callable[..., str]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def build(pipeline: Any, tmp_path: Path) -> Callable[..., Run]:
    """Return a run up to its refinement, by further settings."""

    def run(*more: str) -> Run:
        names = "concepts.names=[Adam Driver,Amy Adams]"
        config = composed_run("concepts=custom", names, *SMALL, f"cache_dir={tmp_path}", *more)
        work = Run(config, RunFolder(tmp_path), Tracker(None))
        work.pipeline = pipeline
        return work

    return run


@pytest.fixture
def key(build: Callable[..., Run]) -> Key:
    return lambda *more: key_of(shared_inputs(build(*more)))


def test_the_last_digits_of_the_refinement_are_in_no_key(build: Callable[..., Run]) -> None:
    """They are not those of another machine, nor of another number of threads."""
    work = build()
    before = key_of(shared_inputs(work))
    noise = torch.randn(work.transform.shape, generator=torch.Generator().manual_seed(0))
    work.transform = work.transform * (1 + 1e-7 * noise)
    assert key_of(shared_inputs(work)) == before


@pytest.mark.parametrize(
    "setting",
    [
        "cfr.closeness=2e-2",
        "cfr.all_words=true",
        "cfr.prior_weight=2",
        "cfr.domain_weight=0",
        "preservation.prior.unit=2",
        "preservation.domain.unit=2",
        "preservation.prior.count=9",
        "preservation.prior.captions=[a horse at night]",
        "kept.people=[Amy Schumer]",
        "prompts.count=4",
        "anchors.person=a woman",
        "concepts.names=[Adam Driver,Amy Poehler]",
        "model.dtype=bfloat16",
        "seed=1",
    ],
)
def test_each_setting_that_decides_the_refinement_is_in_the_key(key: Key, setting: str) -> None:
    assert key(setting) != key()


@pytest.mark.parametrize(
    "setting",
    [
        "fusion.prior_weight=5",
        "fusion.closeness=5",
        "concepts.names=[Amy Adams,Adam Driver]",
        "preservation.domain_weight=2",
    ],
)
def test_what_decides_no_refinement_is_not_in_the_key(key: Key, setting: str) -> None:
    assert key(setting) == key()


def test_a_unit_and_a_weight_that_make_one_product_make_one_key(key: Key) -> None:
    assert key("preservation.prior.unit=4") == key("cfr.prior_weight=4")


def test_a_given_sum_is_known_by_its_numbers(pipeline: Any, key: Key, tmp_path: Path) -> None:
    """Two files may name the same captions, such as those of a model in half precision."""
    found = set()
    for name, scale in (("a", 1.0), ("again", 1.0), ("b", 1.001)):
        total = scale * torch.eye(32, dtype=torch.float64)
        file = tmp_path / f"{name}.safetensors"
        PreservationStatistics(total, 8, text_fingerprint(pipeline), "0" * 32).save(file)
        found.add(key(f"preservation.prior.cache={file}"))
    assert len(found) == 2


def test_the_weights_that_the_refinement_multiplies_are_in_the_key(
    build: Callable[..., Run],
) -> None:
    before = key_of(shared_inputs(build()))
    work = build()
    work.pipeline = tiny_pipeline()
    for weight in projection_weights(work.pipeline.unet).values():
        weight.data *= 1.1
    assert work.text_fingerprint == build().text_fingerprint
    assert key_of(shared_inputs(work)) != before


def test_pictures_of_the_models_own_size_are_known_by_it(build: Callable[..., Run]) -> None:
    """Which is in no weight: a folder may be given another."""

    def named(side: int, *more: str) -> str:
        work = build("sampling.height=null", "sampling.width=null", "judge=none", *more)
        work.pipeline = tiny_pipeline()
        work.pipeline.unet.register_to_config(sample_size=side)
        return key_of(image_inputs(work, work.concepts[0]))

    assert named(8) != named(16)
    assert named(8) == named(16, "sampling.height=32", "sampling.width=32"), "one size, one key"
