"""Preservation statistics: sums that do not depend on how they were taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.preservation.statistics import (
    PreservationAccumulator,
    PreservationStatistics,
    hash_prompts,
    preservation_statistics,
)
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline

PROMPTS = ["a cat", "a dog in the park", "a photo of a man", "a ship at sunset", "a horse"]


@pytest.fixture(scope="module")
def encoder():
    return stable_diffusion_encoder(tiny_pipeline())


@pytest.fixture(scope="module")
def whole(encoder):
    return preservation_statistics(encoder, PROMPTS, "model")


def same(first, second):
    # float32 states of another batch differ in their last digit.
    torch.testing.assert_close(first.total, second.total, rtol=1e-6, atol=1e-6)
    assert (first.count, first.prompts_hash) == (second.count, second.prompts_hash)


def test_it_is_the_sum_over_every_token(encoder, whole):
    naive = sum(torch.outer(e, e) for states in encoder.encode(PROMPTS).double() for e in states)
    torch.testing.assert_close(whole.total, naive, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(whole.mean, naive / len(PROMPTS), rtol=1e-12, atol=1e-9)
    assert whole.total.dtype == torch.float64


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_streaming_is_all_at_once(encoder, whole, batch_size):
    seen = []
    streamed = preservation_statistics(
        encoder, PROMPTS, "model", batch_size=batch_size, progress=seen.append
    )
    same(streamed, whole)
    assert sum(seen) == len(PROMPTS) and max(seen) <= batch_size


def test_parts_add_up_in_any_order(encoder, whole):
    first = preservation_statistics(encoder, PROMPTS[:2], "model")
    second = preservation_statistics(encoder, PROMPTS[2:], "model")
    same(first + second, whole)
    same(second + first, whole)


def test_the_mean_keeps_its_meaning_when_prompts_repeat(encoder, whole):
    twice = preservation_statistics(encoder, PROMPTS * 2, "model")
    torch.testing.assert_close(twice.mean, whole.mean, rtol=1e-6, atol=1e-6)
    assert twice.prompts_hash != whole.prompts_hash


def test_a_file_keeps_everything(whole, tmp_path):
    path = tmp_path / "new" / "prior.safetensors"
    whole.save(path)
    loaded = PreservationStatistics.load(path, "model")
    assert torch.equal(loaded.total, whole.total)
    assert (loaded.count, loaded.prompts_hash) == (len(PROMPTS), whole.prompts_hash)
    assert [file.name for file in path.parent.iterdir()] == ["prior.safetensors"]


def test_another_model_is_refused(encoder, whole, tmp_path):
    whole.save(tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match="belong to the text encoder model, not to other"):
        PreservationStatistics.load(tmp_path / "prior.safetensors", "other")
    with pytest.raises(ValueError, match="build them again"):
        _ = whole + preservation_statistics(encoder, PROMPTS, "other")


def test_a_file_of_another_kind_is_refused(tmp_path):
    save_file({"weight": torch.eye(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no preservation statistics"):
        PreservationStatistics.load(tmp_path / "other.safetensors", "model")


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="hold no prompt"):
        _ = PreservationAccumulator(3, "model").result().mean


def test_prompts_and_states_must_match():
    with pytest.raises(ValueError, match="1 prompts with the states of 2"):
        PreservationAccumulator(3, "model").add(["a"], torch.zeros(2, 4, 3))


def test_a_result_is_frozen_while_sums_go_on():
    sums = PreservationAccumulator(2, "model")
    before = sums.result()
    sums.add(["a"], torch.ones(1, 4, 2))
    assert before.count == 0 and not before.total.any()


def test_hashes_name_multisets():
    assert hash_prompts(["a", "b"]) == hash_prompts(["b", "a"])
    assert len({hash_prompts(p) for p in ([], ["a"], ["a", "a"], ["ab"], ["a", "b"])}) == 5


@pytest.mark.parametrize(("count", "unsaid"), [(2, 1), (3, 0), (40, 0)])
def test_names_that_no_caption_says_are_told(
    count: int, unsaid: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The erased one among the kept is not held, and so not missed."""
    recipe = recipe_in(
        tmp_path,
        "concepts.names=[Adam Driver]",
        "kept.people=[Amy Adams,adam driver,Amy Poehler,Amy Schumer]",
        f"preservation.domain.count={count}",
        pipeline=tiny_pipeline(),
    )
    with caplog.at_level("WARNING", "mace_exp.stages.preservation"):
        assert recipe.preservation.terms["domain"].value.count == count
    warned = "preservation.domain.count = 2: the last 1 of the 3 names of kept" if unsaid else ""
    assert warned in caplog.text and bool(caplog.text) == bool(unsaid)


def square(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


FACTS = {"count": "2", "fingerprint": "model", "prompts_hash": "0" * 32}
NO_STATISTICS = {
    "a vector": (torch.ones(4), {}, "not a square matrix"),
    "no square": (torch.ones(2, 3), {}, "not a square matrix"),
    "whole numbers": (torch.ones(2, 2, dtype=torch.int64), {}, "not a square matrix"),
    "zeros": (torch.zeros(2, 2), {}, "no sum of squares"),
    "a negative square": (square([-1, 0], [0, 1]), {}, "no sum of squares"),
    "more beside the diagonal": (square([1, 2], [2, 1]), {}, "no sum of squares"),
    "asymmetric": (square([1, 0.5], [0.4, 1]), {}, "not symmetric"),
    "NaN": (square([1, torch.nan], [torch.nan, 1]), {}, "not finite"),
    "no prompt": (torch.eye(2), {"count": "0"}, "count of prompts is '0'"),
    "no count": (torch.eye(2), {"count": "two"}, "count of prompts is 'two'"),
    "no hash": (torch.eye(2), {"prompts_hash": "-1"}, "hash of prompts is '-1'"),
    "another width": (torch.eye(4), {}, "matrix of width 4"),
}


@pytest.mark.parametrize("name", NO_STATISTICS)
def test_a_file_that_can_be_no_sum_is_refused_by_what_is_wrong(tmp_path: Path, name: str) -> None:
    total, facts, fault = NO_STATISTICS[name]
    file = tmp_path / "given.safetensors"
    save_file({"total": total}, file, metadata=FACTS | facts)
    with pytest.raises(ValueError, match=fault) as error:
        PreservationStatistics.load(file, "model", 2)
    assert str(file) in str(error.value)


def test_sums_in_single_precision_are_taken(tmp_path: Path) -> None:
    states = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    total = states.mT @ states
    total[0, 1] *= 1 + 1e-7
    file = tmp_path / "given.safetensors"
    save_file({"total": total}, file, metadata=FACTS)
    assert torch.equal(PreservationStatistics.load(file, "model", 6).total, total)
