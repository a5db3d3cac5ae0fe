"""The dataset of a LoRA: its tokens, what a model makes of it, and what it refuses."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.training_data import MACEDataset
from mace_exp.models.model import Model
from mace_exp.models.text import PromptEncoder
from tests.pictures import own_folder

DOCS = Path(__file__).parents[1] / "docs" / "data.md"
ADAM = Concept("Adam Driver", Kind.person, "a person")
PROMPTS = [
    "a photo of Adam Driver",
    "ADAM DRIVER's dog",
    "adam driver and Adam Driver in the park",
]


def images(prompts: list[str]) -> TrainingImages:
    drawn = np.random.default_rng(0).integers(0, 256, (len(prompts), 16, 16, 3), dtype=np.uint8)
    latents = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return TrainingImages(prompts, list(range(len(prompts))), drawn, latents)


MASKS = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
DATASET = MACEDataset(concept=ADAM, images=images(PROMPTS), masks=MASKS, end_of_text=False)


def words(encoder: PromptEncoder, prompt: str, marked: torch.Tensor) -> str:
    """The marked tokens, spelled."""
    ids = encoder.token_ids([prompt])[0][marked].tolist()
    return "".join(encoder.tokenizer.convert_ids_to_tokens(ids)).replace("</w>", " ").strip()


def test_every_occurrence_is_marked_in_any_case(encoder: PromptEncoder) -> None:
    positions = DATASET.positions(encoder)
    assert positions.shape == (3, 24) and positions.dtype == torch.bool
    spelled = [words(encoder, *each) for each in zip(PROMPTS, positions, strict=True)]
    name = "adam driver"
    assert spelled == [name, name, f"{name} {name}"], "and not the possessive ending"
    once, _, twice = positions.sum(dim=1)
    assert once > 2 and twice == 2 * once  # the name is several tokens long


def test_the_end_and_the_padding_count_on_request(encoder: PromptEncoder) -> None:
    plain = DATASET.positions(encoder)
    ended = replace(DATASET, end_of_text=True).positions(encoder)
    for ids, first, second in zip(encoder.token_ids(PROMPTS), plain, ended, strict=True):
        end = ids.tolist().index(encoder.tokenizer.eos_token_id)
        assert torch.equal(second[:end], first[:end])
        assert second[end:].all() and not first[end:].any()


def test_a_model_encodes_each_image_with_its_prompt(pipeline: Any) -> None:
    data = DATASET.encoded(Model(pipeline), None, seed=0, watched=True)
    assert (data.slug, len(DATASET)) == ("adam-driver", 3)
    assert data.latents is DATASET.images.latents and data.masks is MASKS
    encoder = Model(pipeline).encoder
    torch.testing.assert_close(data.states, encoder.encode(PROMPTS))
    assert torch.equal(data.positions, DATASET.positions(encoder))
    assert data.probe is not None and data.prior is None
    assert DATASET.encoded(Model(pipeline), None, seed=0, watched=False).probe is None


def test_prompts_that_cannot_be_used_show_their_tokens(encoder: PromptEncoder) -> None:
    other = replace(DATASET, concept=Concept("noah", Kind.person, "a person"))
    with pytest.raises(ValueError, match="'a photo of Adam Driver': tokens.*'photo</w>'"):
        other.positions(encoder)
    long = replace(DATASET, images=images(["a photo of Adam Driver " * 9]), masks=None)
    with pytest.raises(ValueError, match=r"reads 24: 'a photo .*'photo</w>'"):
        long.positions(encoder)


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside these tests")
def test_the_example_of_the_docs_runs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path / "photos", "Ada Example")
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(code.replace("/models/sd", str(tiny_folder)), names)
    data, pictures = names["data"], names["dataset"].images.images
    assert data.latents.shape == (3, 4, 128, 128) and data.masks.shape == (3, 512, 512)
    assert ((pictures[..., 0] > 127) == data.masks.numpy()).mean() > 0.99
    assert data.positions.any(dim=1).all()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Driver: masks \[3, 8, 8\] do not fit images \[3, 16, 16\]"
    ):
        replace(DATASET, masks=torch.ones(3, 8, 8))
    for count in (2, 4):
        with pytest.raises(ValueError, match=r"do not fit images \[3, 16, 16\]"):
            replace(DATASET, masks=torch.ones(count, 16, 16))
