"""What a fusion keeps of many concepts: ranks in place of layers, in memory or in a file."""

import pytest
import torch

from mace_exp.methods.mace.factors import LowRank, StoredLowRank, stored
from mace_exp.methods.mace.fusion import FusionAccumulator, fuse, prompt_gram
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape
from mace_exp.models.projections import projection_weights
from mace_exp.utils import scratch
from mace_exp.utils.scratch import ScratchFile
from tests.fusing import PROMPTS, added, close, fusion_sums_of, learned, lora_of, transform
from tests.fusing import sums as sums


def test_a_concept_takes_its_rank_in_a_layer_and_not_the_layers_size():
    """A hundred concepts at the width of Stable Diffusion: their numbers, and what they add up to
    in the order that they come."""
    width, height, source = 768, 1280, torch.Generator().manual_seed(0)
    gram = torch.eye(width, dtype=torch.float64)
    parts, expected = [], torch.zeros(height, width, dtype=torch.float64)
    for rank in (1, 2, 4) * 33 + (1,):
        pair = Factors(
            torch.randn(rank, width, generator=source), torch.randn(height, rank, generator=source)
        )
        lora = Lora({"attn2.to_k": pair}, LoraShape(rank=rank, alpha=3))
        parts.append(fusion_sums_of(gram, lora, gram))
        expected += lora.shape.scale * pair.up.double() @ pair.down.double()
    total = added(*parts)
    pairs = [term.load() for term in total.factors["attn2.to_k"]]
    held = sum(pair.up.numel() + pair.down.numel() for pair in pairs)
    assert held == (7 * 33 + 1) * (width + height) < height * width
    torch.testing.assert_close(learned(total)["attn2.to_k"], expected, rtol=1e-12, atol=1e-10)
    assert learned(total).keys() == {"attn2.to_k"}


@pytest.mark.parametrize("most_rank", [0, 3, 100])
def test_factors_in_a_file_are_the_same_sums(pipeline, encoder, sums, most_rank):
    """All of them in the file, some, and none: weights differ by rounding alone."""
    weights = projection_weights(pipeline.unet)
    together = added(*sums.values())
    whole = fuse(weights, transform(0), together, closeness=1.0)
    streamed, shared = FusionAccumulator(encoder.width, most_rank=most_rank), transform(0)
    for slug in PROMPTS:
        streamed.add(prompt_gram(encoder, PROMPTS[slug]), lora_of(pipeline, slug), shared)
    found = streamed.result()
    assert found.factors.keys() == together.factors.keys()
    for terms in found.factors.values():
        assert _ranks_in_memory(terms) <= most_rank
        assert any(isinstance(term, StoredLowRank) for term in terms) == (most_rank < 100)
    close(fuse(weights, transform(0), found, closeness=1.0), whole, 1e-5)
    close(learned(found), learned(together), 1e-5)


def _ranks_in_memory(terms):
    return sum(len(term.down) for term in terms if isinstance(term, LowRank))


def test_factors_come_out_of_their_file_as_they_went_in():
    file, source = ScratchFile(), torch.Generator().manual_seed(0)
    pairs = [
        LowRank(
            torch.randn(7, rank, generator=source),
            torch.randn(rank, 5, dtype=torch.float64, generator=source),
        )
        for rank in (3, 1)
    ]
    terms = [stored(pair, file) for pair in pairs]
    for term, pair in zip(terms, pairs, strict=True):
        assert isinstance(term, StoredLowRank)
        found = term.load()
        assert torch.equal(found.up, pair.up) and torch.equal(found.down, pair.down)


def test_without_room_on_the_disk_factors_stay_in_memory_and_moments_are_left_out(monkeypatch):
    monkeypatch.setattr(scratch, "LEFT_FREE", 1 << 60)
    pair, gram = LowRank(torch.ones(7, 1), torch.ones(1, 5, dtype=torch.float64)), torch.eye(5)
    held = stored(pair, ScratchFile())
    pair.up.zero_()  # the stack writes over what it handed out
    assert isinstance(held, LowRank) and torch.equal(held.up, torch.ones(7, 1))
    moments = GramFile()
    moments.put(["a cat"], gram)
    assert moments.get(["a cat"]) is None


def test_moments_come_out_of_their_file_as_they_went_in(encoder):
    file, gram = GramFile(), prompt_gram(encoder, PROMPTS["cat"])
    file.put(PROMPTS["cat"], gram)
    file.put(PROMPTS["dog"], 2 * gram)
    cat, dog = (file.get(PROMPTS[name]) for name in ("cat", "dog"))
    assert cat is not None and dog is not None
    assert torch.equal(cat, gram.tril() + gram.tril(-1).mT) and torch.equal(dog, 2 * cat)
    assert file.get(["another sentence"]) is None
