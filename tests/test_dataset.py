"""The dataset: its items, its tokens, and what it refuses. It needs nothing but a tokenizer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mace_exp.data.dataset import ClassImages, Instances, MACEDataset, collate
from tests.pictures import own_folder
from tests.tiny import tiny_tokenizer

DOCS = Path(__file__).parents[1] / "docs" / "data.md"
LENGTH = 24


def pixels(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(context_length=LENGTH)


MASKS = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
ADAM = Instances(
    "Adam Driver",
    ["a photo of Adam Driver", "ADAM DRIVER's dog", "adam driver and Adam Driver in the park"],
    pixels(3),
    MASKS,
)
DOODLE = Instances("doodle", ["a portrait in the style of doodle"], pixels(1, seed=1))


def words(tokenizer, item) -> str:
    """The marked tokens, spelled."""
    ids = item["instance_prompt_ids"][item["concept_positions"]].tolist()
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("</w>", " ").strip()


def test_an_item_holds_what_it_promises(tokenizer) -> None:
    dataset = MACEDataset(tokenizer, [ADAM])
    item = dataset[1]
    assert set(item) == {
        "instance_prompt",
        "instance_images",
        "instance_masks",
        "instance_prompt_ids",
        "concept_positions",
    }
    assert len(dataset) == 3 and item["instance_prompt"] == "ADAM DRIVER's dog"
    assert item["instance_images"].shape == (3, 16, 16)
    assert item["instance_images"].min() >= -1 and item["instance_images"].max() <= 1
    restored = (item["instance_images"] + 1).mul(127.5).round().to(torch.uint8)
    assert np.array_equal(restored.permute(1, 2, 0), ADAM.images[1])
    assert item["instance_masks"] is not None and torch.equal(item["instance_masks"], MASKS[1])
    assert item["instance_prompt_ids"].shape == item["concept_positions"].shape == (LENGTH,)
    assert item["concept_positions"].dtype == torch.bool


def test_bool_masks_give_the_same_items(tokenizer) -> None:
    as_bool = Instances(ADAM.concept, ADAM.prompts, ADAM.images, MASKS.bool())
    given = (MACEDataset(tokenizer, [each])[1]["instance_masks"] for each in (ADAM, as_bool))
    torch.testing.assert_close(*given)


def test_every_occurrence_is_marked_in_any_case(tokenizer) -> None:
    dataset = MACEDataset(tokenizer, [ADAM])
    name = "adam driver"
    assert [words(tokenizer, item) for item in map(dataset.__getitem__, range(3))] == [
        name,
        name,  # and not its possessive ending
        f"{name} {name}",
    ]
    once, twice = (dataset[index]["concept_positions"].sum() for index in (0, 2))
    assert once > 2 and twice == 2 * once  # the name is several tokens long


def test_the_end_and_the_padding_count_on_request(tokenizer) -> None:
    plain = MACEDataset(tokenizer, [ADAM]).concept_positions
    ended = MACEDataset(tokenizer, [ADAM], end_of_text=True)
    for row, (first, second) in enumerate(zip(plain, ended.concept_positions, strict=True)):
        end = ended.instance_prompt_ids[row].tolist().index(tokenizer.eos_token_id)
        assert torch.equal(second[:end], first[:end])
        assert second[end:].all() and not first[end:].any()


def test_prompts_that_cannot_be_used_show_their_tokens(tokenizer) -> None:
    other = Instances("noah", ["a photo of Adam Driver"], pixels(1))
    with pytest.raises(ValueError, match="'a photo of Adam Driver': tokens.*'photo</w>'"):
        MACEDataset(tokenizer, [ADAM, other])
    with pytest.raises(
        ValueError, match=r"tokens, start and end included; the model reads 8: 'a photo"
    ):
        MACEDataset(tokenizer, [ADAM], context_length=8)
    long = ClassImages(["a photo " * 20], pixels(1))
    with pytest.raises(ValueError, match=r"reads 24: 'a photo .*'photo</w>'"):
        MACEDataset(tokenizer, [ADAM], preserved=long)


def test_a_tokenizer_without_a_limit_needs_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    with pytest.raises(ValueError, match="context_length=77"):
        MACEDataset(tokenizer, [ADAM])
    assert MACEDataset(tokenizer, [ADAM], context_length=30)[0]["concept_positions"].shape == (30,)


def test_class_images_stand_beside_and_go_around(tokenizer) -> None:
    preserved = ClassImages(
        [f"a {noun}" for noun in ("man", "dog", "cat", "ship", "truck")], pixels(5)
    )
    dataset = MACEDataset(tokenizer, [ADAM], preserved=preserved)
    assert len(dataset) == 5
    items = [dataset[index] for index in range(5)]
    assert items[4]["instance_prompt"] == ADAM.prompts[1]
    for index, item in enumerate(items):
        assert "preserve_images" in item and "preserve_prompt_ids" in item
        shown = (item["preserve_images"] + 1).mul(127.5).round().to(torch.uint8)
        assert np.array_equal(shown.permute(1, 2, 0), preserved.images[index])
        assert torch.equal(item["preserve_prompt_ids"], dataset.preserve_prompt_ids[index])
    few = MACEDataset(tokenizer, [ADAM], preserved=ClassImages(["a dog"], pixels(1)))
    assert len(few) == 3
    for item in (few[0], few[2]):
        assert "preserve_prompt_ids" in item
        assert torch.equal(item["preserve_prompt_ids"], few.preserve_prompt_ids[0])
    with pytest.raises(IndexError):
        few[3]


def test_kinds_can_be_mixed_in_a_loader(tokenizer) -> None:
    dataset = MACEDataset(tokenizer, [ADAM, DOODLE])
    assert dataset[3]["instance_masks"] is None
    [batch] = DataLoader(dataset, batch_size=4, collate_fn=collate)
    assert batch["instance_prompt"] == [*ADAM.prompts, *DOODLE.prompts]
    assert batch["instance_masks"].shape == (4, 16, 16) and batch["instance_masks"][3].all()
    assert torch.equal(batch["instance_masks"][:3], MASKS)
    assert batch["instance_images"].shape == (4, 3, 16, 16)
    assert torch.equal(batch["concept_positions"], dataset.concept_positions)
    [alone] = DataLoader(MACEDataset(tokenizer, [DOODLE]), collate_fn=collate)
    assert alone["instance_masks"] is None


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside these tests")
def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder(tmp_path / "photos", "Ada Example")
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(code.replace("/models/sd/tokenizer", "tokenizer"), names)
    batches = list(names["loader"])
    assert [len(batch["instance_prompt"]) for batch in batches] == [2, 1]
    for batch in batches:
        images, masks = batch["instance_images"], batch["instance_masks"]
        assert images.shape[1:] == (3, 512, 512) and masks.shape[1:] == (512, 512)
        assert ((images[:, 0] > 0) == (masks > 0.5)).float().mean() > 0.99
        assert batch["concept_positions"].any(dim=1).all()


def test_what_does_not_fit_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="at least one concept"):
        MACEDataset(tokenizer, [])
    with pytest.raises(ValueError, match="cat: 2 images and 1 prompts"):
        Instances("cat", ["a cat"], pixels(2))
    with pytest.raises(ValueError, match=r"cat: masks \[1, 8, 8\] do not fit images \[1, 16, 16\]"):
        Instances("cat", ["a cat"], pixels(1), torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="class images: images are float"):
        ClassImages(["a cat"], pixels(1) / 255)
