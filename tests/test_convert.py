"""Configurations of the published implementation become experiment files that compose."""

import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mace_exp.cli.published_keys import RENAMED, UNCONVERTED
from mace_exp.config.chosen_options import leave_out
from mace_exp.config.composing import composed_run
from mace_exp.config.options import VARIANTS
from mace_exp.convert import convert, read
from mace_exp.data.masks.grounded_sam import GroundedSamMasks
from mace_exp.data.masks.none import NoMasks
from mace_exp.data.prior_images.base import FolderPriorImages, NoPriorImages
from mace_exp.models.schema import Precision
from mace_exp.runs.schema import NoTracking, WandbTracking
from mace_exp.utils.conf import CONF
from tests.theirs import PRIOR, SHIP, THEIRS, composed, concepts, remarks


@pytest.mark.parametrize(
    ("name", "closeness", "train", "fuse", "preserve"),
    [
        ("object_ship", 1e3, 0, 0, 0),
        ("object_automobile", 1e2, 0, 0, 0),
        ("object_bird", 1e1, 0, 0, 0),
        ("celebrity_1", 0, 1e-4, 1e-4, 8e3),
        ("celebrity_5", 0, 1e-4, 1e-4, 5e4),
        ("celebrity_10", 0, 1e-4, 1e-4, 8e4),
        ("celebrity_100", 0, 1e-4, "1e-4", 2e5),
        ("artist_100", 0, 1e-4, 1e-4, "8e4"),
        ("explicit_4", 0, 7e-7, 7e-7, 0),
    ],
)
def test_published_settings_are_those_of_conf(
    name: str, closeness: float, train: float, fuse: float, preserve: float, tmp_path: Path
) -> None:
    """There, hyphens stand for spaces, and people and explicit words are objects."""
    ours = composed_run(f"experiment={name}", files=False)
    kinds = {"style": "style"}
    pairs = [[n.replace(" ", "-"), kinds.get(kind, "object")] for n, kind, _ in concepts(ours)]
    theirs = {
        "multi_concept": [pairs],
        "mapping_concept": [[anchor] for *_, anchor in concepts(ours)],
        "learning_rate": str(ours.lora.learning_rate),
        "max_train_steps": ours.lora.steps,
        "importance_sampling": ours.lora.importance_sampling,
        "lamb": closeness,
        "train_preserve_scale": train,
        "fuse_preserve_scale": fuse,
        "preserve_weight": preserve,
        "use_gsam_mask": name.startswith(("object", "celebrity")),
    }
    config = composed(theirs, tmp_path)
    assert concepts(config) == concepts(ours)
    for group in ("model", "cfr", "lora", "fusion", "kept", "preservation", "prompts"):
        assert getattr(config, group) == getattr(ours, group), group
    assert isinstance(config.masks, GroundedSamMasks if theirs["use_gsam_mask"] else NoMasks)


def test_the_sample_does_the_same_here(tmp_path: Path) -> None:
    config = composed(dict(read(THEIRS)), tmp_path)
    assert concepts(config) == [
        ("Adam Driver", "person", "a person"),
        ("Amy Adams", "person", "a person"),
        ("Somebody New", "person", "a woman"),
    ]
    assert config.model.name == "sd_v1_4" and config.seed == 2024
    assert (config.cfr.closeness, config.fusion.closeness) == (0.5, 0.5)
    lora = config.lora
    assert (lora.rank, lora.alpha, lora.steps, lora.learning_rate) == (2, 2, 50, 1e-4)
    assert lora.end_of_text and lora.importance_sampling and lora.per_concept
    assert config.prompts.count == 30 and config.sampling.height == config.sampling.width == 512
    assert remarks(dict(read(THEIRS))) == [
        f"augment = True: {UNCONVERTED['augment'][1]}",
        f"max_memory = 100: {UNCONVERTED['max_memory'][1]}",
        "lr_scheduler = cosine: always constant",
        "their_own_idea: unknown",
    ]


def test_mixed_kinds_have_their_anchors_and_masks(tmp_path: Path) -> None:
    pairs = [["Brett-Weston", "style"], ["a word", "object"], ["cat", "object"]]
    anchors = ["art", "a person wearing clothes", "sky"]
    theirs = {"multi_concept": pairs, "mapping_concept": anchors, "use_gsam_mask": True}
    config = composed(theirs, tmp_path)
    assert concepts(config) == [
        ("Brett Weston", "style", "art"),
        ("a word", "explicit", "a person wearing clothes"),
        ("cat", "object", "sky"),
    ]
    assert isinstance(config.masks, GroundedSamMasks) and len(config.kept.artists) == 100
    unmasked = theirs | {"multi_concept": pairs[:2], "mapping_concept": anchors[:2]}
    assert isinstance(composed(unmasked, tmp_path).masks, NoMasks)
    assert "trained on whole images" in remarks(unmasked)[0]


@pytest.mark.parametrize("nothing", [False, None, ""])
def test_a_cache_that_is_not_named_weighs_nothing(nothing: object, tmp_path: Path) -> None:
    theirs = SHIP | {"fuse_preserve_scale": 0.1, "preserve_weight": 5.0}
    config = composed(theirs | {"domain_preservation_cache_path": nothing}, tmp_path)
    assert (config.fusion.prior_weight, config.fusion.domain_weight) == (0.1, 0)
    assert composed(theirs, tmp_path).fusion.domain_weight == 0.5


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    theirs = SHIP | {"pretrained_model_name_or_path": "/models/x y", "variant": "fp16"}
    model = composed(theirs, tmp_path).model
    assert (model.name, model.source, model.variant) == ("path", "/models/x y", "fp16")


def test_there_are_no_more_prompts_than_templates(tmp_path: Path) -> None:
    assert composed(SHIP | {"prompt_len": 250}, tmp_path).prompts.count == 128
    assert remarks(SHIP | {"prompt_len": 250}) == [
        "prompts.count = 250: 128, one for each template"
    ]
    assert composed(SHIP | {"prompt_len": 3, "aug_length": 9}, tmp_path).prompts.count == 3
    assert composed(SHIP | {"aug_length": 9}, tmp_path).prompts.count == 9


@pytest.mark.parametrize("key", ["class_data_dir", "preserve_data_dir"])
def test_class_images_of_a_folder_are_taken(key: str, tmp_path: Path) -> None:
    theirs = SHIP | PRIOR | {key: "2024"}
    prior = composed(theirs, tmp_path).prior_images
    assert isinstance(prior, FolderPriorImages) and not remarks(theirs)
    assert (prior.path, prior.prompt, prior.weight) == ("2024", "a person", 0.5)
    off = theirs | {"with_prior_preservation": False}
    assert isinstance(composed(off, tmp_path).prior_images, NoPriorImages) and not remarks(off)
    assert [line.split(":")[0] for line in remarks(theirs | {key: None})] == [
        "with_prior_preservation = True"
    ]


@pytest.mark.parametrize(
    ("given", "dtype"),
    [("no", "float32"), (False, "float32"), ("fp16", "float16"), ("bf16", "bfloat16")],
)
def test_precision(given: object, dtype: str, tmp_path: Path) -> None:
    theirs = SHIP | {"mixed_precision": given}
    assert composed(theirs, tmp_path).model.dtype is Precision[dtype] and not remarks(theirs)
    assert remarks(SHIP | {"mixed_precision": "fp8"})[0].startswith("mixed_precision = fp8: ")


def test_where_it_reports(tmp_path: Path) -> None:
    project = {"report_to": "wandb", "tracker_project_name": "theirs"}
    tracking = composed(SHIP | project, tmp_path).tracking
    assert isinstance(tracking, WandbTracking) and tracking.project == "theirs"
    elsewhere = SHIP | {"report_to": "tensorboard"}
    assert isinstance(composed(elsewhere, tmp_path).tracking, NoTracking)
    assert remarks(elsewhere)[0].startswith("report_to = tensorboard: ")
    nowhere = SHIP | {"report_to": "none"}
    assert isinstance(composed(nowhere, tmp_path).tracking, NoTracking) and not remarks(nowhere)


@pytest.mark.parametrize("key", UNCONVERTED)
def test_what_asks_for_nothing_is_left_out_silently(key: str) -> None:
    for nothing in (UNCONVERTED[key][0], None):
        assert not remarks(SHIP | {key: nothing})
    assert not remarks(SHIP | {"adam_epsilon": "1e-8"})


def test_unknown_keys_are_named_without_values_that_may_be_secret() -> None:
    theirs = SHIP | {"hub_token": "hf_abc", "nested": {"password": "p"}, "unused": None}
    assert remarks(theirs) == ["hub_token: unknown", "nested: unknown"]


RANGE: dict[str, dict[str, Any]] = {
    "everything null": dict.fromkeys([*RENAMED, *UNCONVERTED, "variant", "class_prompt"]) | SHIP,
    "names that look like YAML": {
        "multi_concept": [[["Null: {a}", "object"], ["l'Été #2", "object"], ["on", "object"]]],
        "mapping_concept": "a 'thing': [x, y]",
    },
    "class images": SHIP | {"class_data_dir": "a b"} | PRIOR | {"class_prompt": ["a: b"]},
    "values of several lines": SHIP | {"report_to": "all", "output_dir": "a\nb: c"},
    "unknown things": SHIP | {"nested": {"a": [1, {"b": "\n- c"}]}, "a\n---\nx: y": 1},
}


@pytest.mark.parametrize("theirs", RANGE.values(), ids=RANGE)
def test_every_file_that_is_written_composes(theirs: dict[str, Any], tmp_path: Path) -> None:
    composed(theirs, tmp_path)


FULL = SHIP | PRIOR | {"class_data_dir": "x", "class_prompt": "y", "report_to": "wandb"}


def test_every_option_fits_beside_a_converted_file() -> None:
    """What the chosen option lacks is left out of the file, and nothing else."""
    values = convert(FULL | {"use_gsam_mask": True}).values
    whole = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(whole, key, value)
    tried = 0
    for group, variants in VARIANTS.items():
        for option in {file.stem for file in (CONF / group).glob("*.yaml")}:
            content = deepcopy(whole)
            leave_out(content, VARIANTS, [f"{group}={option}"])
            schema = variants.get(option.removesuffix("_hub"))
            if schema is not None and group in whole:
                known = {field.name for field in fields(schema)}
                assert set(content[group]) == set(whole[group]) & known, (group, option)
                tried += len(set(whole[group]) - known)
            assert {k: v for k, v in content.items() if k != group} == {
                k: v for k, v in whole.items() if k != group
            }
    assert tried > 3


def test_another_source_is_chosen_beside_a_converted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed(FULL, tmp_path)
    chosen = ["prior_images=none", "tracking=none", "masks=attention", "evaluation=none"]
    monkeypatch.setattr(sys, "argv", ["mace_exp", *chosen])
    place = f"hydra.searchpath=[file://{tmp_path}]"
    config = composed_run(place, "experiment=theirs", *chosen, files=False)
    assert isinstance(config.prior_images, NoPriorImages)
    with pytest.raises(ValueError, match=r"prior_images.pth: there is no such key"):
        file = tmp_path / "experiment" / "theirs.yaml"
        file.write_text(file.read_text().replace("  path:", "  pth:"))
        composed_run(place, "experiment=theirs", *chosen, files=False)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"multi_concept": []}, "multi_concept names nothing"),
        ({"multi_concept": [[[42, "object"]]]}, r"multi_concept holds \[42, 'object'\]"),
        (
            {"multi_concept": [["ship", "vessel"]]},
            r"one of \['person', 'object', 'style', 'explicit'",
        ),
        ({"mapping_concept": ["a", "b"]}, "2 anchors for 1 concepts"),
        ({"mapping_concept": [None]}, "mapping_concept holds None"),
        ({"rank": float("inf")}, "rank = inf: "),
        ({"rank": True}, "rank = True: "),
        ({"learning_rate": "high"}, "learning_rate = 'high': "),
        ({"use_pooler": 3}, "use_pooler = 3: "),
        ({"variant": 16}, "variant = 16: "),
    ],
)
def test_what_cannot_be_read_is_refused(theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(SHIP | theirs)
