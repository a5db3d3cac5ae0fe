"""Whole runs on data of the user's own: folders of images and masks, class images, mixed kinds, and
every key of the LoRA."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mace_exp.data.files import UserImage
from mace_exp.data.training_images import load_images
from mace_exp.data.user_images import read_mask_views, read_views
from mace_exp.data.views import Views
from mace_exp.methods.mace.lora import load_lora
from mace_exp.methods.mace.stages import lora
from mace_exp.models.text import PromptEncoder
from mace_exp.stages import masks as stages_masks
from tests.pictures import disc, own_folder, save
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, rows

UP_TO_LORA = "stages=[images,masks,preservation,cfr,lora]"
LARGE = 64  # not the 32 pixels of the model, so that the size that is asked for can be seen


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return own_folder(tmp_path / "own", "Adam Driver", "amy-adams")


def from_folder(own: Path, *more: str) -> list[str]:
    return [PEOPLE, "images=folder", f"images.path={own}", "images.per_concept=null", *more]


def made(folder: Path) -> dict[str, int]:
    return read(folder / "summary.json")["made"]


def said(folder: Path) -> str:
    return (folder / "run.log").read_text(encoding="utf-8")


def cached(cache: Path, kind: str) -> list[Path]:
    return [path for path in (cache / kind).iterdir() if path.is_dir()]


def test_a_run_trains_on_the_users_images_and_masks(run: Run, own: Path, tmp_path: Path) -> None:
    cache = tmp_path / "own-cache"
    command = from_folder(
        own,
        "masks=precomputed",
        f"cache_dir={cache}",
        "images.crop=random",
        "images.crop_share=0.6",
        "images.flip=true",
        f"stages={UP_TO_FUSION}",
    )
    folder = run("own", *command)
    assert made(folder) == {"images": 2, "statistics": 2, "refinements": 1, "loras": 2}
    views = Views(size=(32, 32), crop="random", share=0.6, flip=True)
    for path in cached(cache, "images"):
        training = load_images(path)
        name = "Adam Driver" if "Adam Driver" in training.prompts[0] else "amy-adams"
        files = [
            UserImage(own / name / f"{i}.png", None, own / f"{name} mask" / f"{i}.png")
            for i in range(3)
        ]
        assert np.array_equal(training.images, read_views(files, training.seeds, views))
        seen = read_mask_views(files, training.seeds, views).masks
        assert ((training.images[..., 0] > 127) == seen).mean() > 0.98
        with (folder / "masks" / "index.csv").open() as file:
            overlays = [row["file"] for row in csv.DictReader(file)]
        own_overlays = [
            each for each in overlays if each.startswith(name.lower().replace(" ", "-"))
        ]
        assert len(own_overlays) == 3
        for mask, overlay in zip(seen, own_overlays, strict=True):
            shown = np.asarray(Image.open(folder / "masks" / overlay))
            assert (shown[mask].mean() > 180) and (shown[~mask].max() < 200)
    assert made(run("again", *command)) == {}
    save(own / "amy-adams" / "1.png", np.ones((40, 48, 3), bool))
    assert made(run("changed", *command)) == {"images": 1, "loras": 1}
    assert made(run("unflipped", *command, "images.flip=false"))["images"] == 2


def test_users_images_can_take_the_models_masks(run: Run, own: Path) -> None:
    command = from_folder(own, f"images.size={LARGE}", "stages=[images,masks]")
    folder = run("attention", *command)
    assert f"the masks in {own / 'Adam Driver mask'} are not read" in said(folder)
    overlay = Image.open(folder / "masks" / "adam-driver-00.png")
    assert overlay.size == (LARGE, LARGE)


def test_what_is_wrong_with_the_users_images_is_said_at_once(
    refusal: Callable[..., str], arguments: list[str], own: Path
) -> None:
    command = [*arguments, *from_folder(own, "masks=precomputed")]
    (own / "amy-adams mask" / "2.png").unlink()
    assert f"mask {own / 'amy-adams mask' / '2.png'} of" in refusal(*command)
    Image.new("RGB", (9, 9)).save(own / "Adam Driver" / "0.png")
    message = refusal(*command)
    assert "is 48x40 pixels, its image is 9x9" in message and "2.png" in message
    assert "images.size = 30" in refusal(*command, "images.size=30")
    assert "contains 3 images, 5 are requested" in refusal(*command, "images.per_concept=5")


def test_masks_of_drawn_images_are_looked_at_before_a_model_is_loaded(
    refusal: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    command = [*arguments, PEOPLE, "masks=precomputed", f"masks.path={tmp_path}"]
    for name in ("Adam Driver", "amy-adams"):
        for index in range(2):
            save(tmp_path / name / f"{index:04d}.png", np.ones((32, 32), bool))
    larger = refusal(*command, "sampling.width=40")
    assert "0000.png is 32x32 pixels, its image is 40x32" in larger, "the height is the model's"
    (tmp_path / "amy-adams" / "0001.png").unlink()
    missing = f"masks.path: mask {tmp_path / 'amy-adams' / '0001.png'} is missing (2 are needed)"
    assert refusal(*command) == f"mace_exp: {missing}"


def test_masks_that_do_not_fit_are_refused_before_images_are_drawn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the settings alone do not tell the size: a model that has to be fetched."""
    from mace_exp.config import preflight as named_files

    monkeypatch.setattr(named_files, "native_size", lambda location: None)
    for index in range(2):
        save(tmp_path / "Adam Driver" / f"{index}.png", np.ones((40, 48), bool))
    masks = ("masks=precomputed", f"masks.path={tmp_path}", "images.seed=77")
    with pytest.raises(SystemExit, match="0.png is 48x40 pixels, its image is 32x32"):
        run("unfit", "concepts=[Adam Driver]", *masks)
    assert not (tmp_path / "unfit").exists(), "before the first stage"


@pytest.mark.parametrize("source", ["folder", "lists"])
def test_class_images_enter_the_loss_with_their_weight(
    run: Run, tmp_path: Path, source: str
) -> None:
    own_folder(tmp_path, "class", count=2, masks="none")
    (tmp_path / "images.txt").write_text("class/0.png\nclass/1.png\n")
    (tmp_path / "prompts.txt").write_text("a person\na woman in the park\n")
    given = {
        "folder": [f"prior_images.path={tmp_path / 'class'}", "prior_images.prompt=a person"],
        "lists": [
            f"prior_images.images={tmp_path / 'images.txt'}",
            f"prior_images.prompts={tmp_path / 'prompts.txt'}",
        ],
    }[source]
    # Dropout of its own, so that no other test has trained these LoRAs.
    more = [PEOPLE, f"prior_images={source}", *given, UP_TO_LORA]
    folder = run("prior", *more, f"lora.dropout={0.11 if source == 'folder' else 0.12}")
    first = rows(folder, "lora")
    assert made(folder)["loras"] == 2 and made(folder)["prior_images"] == 1
    assert all(row["lora/prior_loss"] > 0 and row["lora/loss"] > 0 for row in first)
    heavy = run(
        "heavy",
        *more,
        f"lora.dropout={0.11 if source == 'folder' else 0.12}",
        "prior_images.weight=10",
    )
    assert made(heavy) == {"loras": 2}, "the weight decides the LoRAs and nothing else"
    start, other = first[0], rows(heavy, "lora")[0]
    assert other["lora/prior_loss"] == pytest.approx(start["lora/prior_loss"], rel=1e-5)
    assert other["lora/loss"] - start["lora/loss"] == pytest.approx(
        9 * start["lora/prior_loss"], rel=1e-3
    )


def test_prompts_of_class_images_are_encoded_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of LoRAs; images with one prompt share its states."""
    own_folder(tmp_path, "class", count=3, masks="none")
    images, prompts = tmp_path / "images.txt", tmp_path / "prompts.txt"
    images.write_text("class/0.png\nclass/1.png\nclass/2.png\n")
    prompts.write_text("a man\na woman\na man\n")
    read, trained, encode, train = [], [], PromptEncoder.encode, lora.train_loras

    def noted_encode(own: PromptEncoder, prompts: list[str], **named: Any) -> torch.Tensor:
        read.extend(prompts)
        return encode(own, prompts, **named)

    def noted_train(unet: Any, concepts: Any, *more: Any, **named: Any) -> Any:
        trained.extend(concepts)
        return train(unet, concepts, *more, **named)

    monkeypatch.setattr(PromptEncoder, "encode", noted_encode)
    monkeypatch.setattr(lora, "train_loras", noted_train)
    lists = (f"prior_images.images={images}", f"prior_images.prompts={prompts}")
    alone = ("prior_images=lists", *lists, "lora.concepts_per_batch=1", "lora.dropout=0.13")
    run("prior", PEOPLE, *alone, UP_TO_LORA)
    assert len(trained) == 2
    assert (read.count("a man"), read.count("a woman")) == (1, 1)
    for data in trained:
        first, second, third = data.prior.states
        assert torch.equal(first, third) and not torch.equal(first, second)


def test_a_style_without_masks_trains_beside_people_with_masks(run: Run, tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", "Adam Driver")
    own_folder(own, "doodle", masks="none")
    command = [
        "concepts=[Adam Driver,doodle]",
        "concepts.kinds={doodle: style}",
        "images=folder",
        f"images.path={own}",
        "images.per_concept=2",
        "masks=precomputed",
        f"stages={UP_TO_FUSION}",
    ]
    folder = run("mixed", *command)
    assert {path.name for path in (folder / "masks").glob("*.png")} == {
        "adam-driver-00.png",
        "adam-driver-01.png",
    }
    assert {path.stem for path in (folder / "loras").iterdir()} == {"adam-driver", "doodle"}
    assert {row["concept"] for row in rows(folder, "lora")} == {"adam-driver", "doodle"}
    joint = run("joint-mixed", *command, "lora.per_concept=false", "lora.steps=6")
    assert len(rows(joint, "lora")) == 6


def test_an_empty_mask_is_named_and_counted(run: Run, own: Path) -> None:
    empty = own / "Adam Driver mask" / "0.png"
    save(empty, disc(40, 48, at=(-50, -50), radius=1))
    folder = run("empty", *from_folder(own, "masks=precomputed", "stages=[images,masks]"))
    assert f"the mask of {empty} is empty" in said(folder)
    assert read(folder / "summary.json")["mask_fallbacks"] == 1


@pytest.mark.parametrize(("masks", "overlays"), [("none", 0), ("whole", 4)])
def test_whole_masks_are_there_to_look_at(run: Run, masks: str, overlays: int) -> None:
    folder = run(masks, PEOPLE, f"masks={masks}", "stages=[images,masks]")
    assert len(list((folder / "masks").glob("*.png"))) == overlays


@pytest.mark.parametrize("masks", ["attention", "whole", "precomputed"])
def test_a_mask_takes_a_byte_a_pixel(
    run: Run, own: Path, masks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    make = stages_masks.ConceptMasks

    def noted(masks: Any, fallbacks: int = 0) -> Any:
        found.update(masks)
        return make(masks, fallbacks)

    monkeypatch.setattr(stages_masks, "ConceptMasks", noted)
    run(masks, *from_folder(own, f"masks={masks}", "stages=[images,masks]"))
    assert len(found) == 2
    for each in found.values():
        assert each.shape == (3, 32, 32) and each.dtype == torch.bool


def test_no_more_overlays_are_held_than_are_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    monkeypatch.setattr(stages_masks, "MAX_SHOWN", 3)
    monkeypatch.setattr(stages_masks, "Picture", lambda _, caption: held.append(caption))
    folder = run("few", PEOPLE, "masks=whole", "stages=[images,masks]")
    assert len(held) == 3 and len(list((folder / "masks").glob("*.png"))) == 4


LORA_KEYS: dict[str, Any] = {
    "rank": (3, 3),
    "alpha": (2.5, 2.5),
    "init": ("kaiming", "kaiming"),
    "dropout": (0.3, 0.3),
    "targets": ("[to_q,to_v]", ("to_q", "to_v")),
}


def test_every_key_of_the_lora_reaches_its_file(run: Run) -> None:
    """Each is part of what names a LoRA in the cache, too: nothing else has trained this one."""
    keys = [f"lora.{key}={given}" for key, (given, _) in LORA_KEYS.items()]
    folder = run("keys", "concepts=[Amy Adams]", UP_TO_LORA, *keys)
    assert made(folder)["loras"] == 1
    lora = load_lora(folder / "loras" / "amy-adams.safetensors")
    for key, (_, kept) in LORA_KEYS.items():
        assert getattr(lora.shape, key) == kept, key
    assert all(pair.down.shape[0] == pair.up.shape[1] == 3 for pair in lora.factors.values())
    assert {path.rpartition(".")[2] for path in lora.factors} == {"to_q", "to_v"}
