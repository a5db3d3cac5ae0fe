"""Configurations of the published implementation become experiment files that compose."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mace_exp.runs.schema import NoTracking, WandbTracking

from mace_exp.config import composed_run
from mace_exp.config.run_config import RunConfig
from mace_exp.convert.__main__ import check, main, read
from mace_exp.convert.keys import FIXED, NUMBERS, WITHOUT_COUNTERPART, convert
from mace_exp.convert.parts import PARTS
from mace_exp.data.schema import FolderPriorImages, GroundedSamMasks, NoMasks, NoPriorImages
from mace_exp.models.schema import Precision

THEIRS = Path(__file__).parent / "data" / "theirs.yaml"
SHIP: dict[str, Any] = {"multi_concept": [[["ship", "object"]]], "mapping_concept": ["ground"]}


def composed(theirs: dict[str, Any], folder: Path) -> RunConfig:
    """Convert, write the file, and compose it as `--config-dir` does."""
    file = folder / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(convert(theirs).text("theirs"))
    return composed_run(f"hydra.searchpath=[file://{folder}]", "experiment=theirs", files=False)


def remarks(theirs: dict[str, Any]) -> str:
    return "\n".join(convert(theirs).remarks)


def test_the_sample_does_the_same_here(tmp_path: Path) -> None:
    config = composed(dict(read(THEIRS)), tmp_path)
    concepts = [(c.name, c.kind.name, c.anchor) for c in config.concept_list()]
    assert concepts == [
        ("Adam Driver", "person", "a person"),
        ("Amy Adams", "person", "a person"),
        ("Somebody New", "person", "a woman"),
    ]
    assert config.model.name == "sd_v1_4" and config.seed == 2024
    cfr, lora, fusion = config.cfr, config.lora, config.fusion
    assert (cfr.closeness, cfr.prior_weight, cfr.domain_weight) == (0.5, 1e-8, 8e-4)
    assert (fusion.closeness, fusion.prior_weight, fusion.domain_weight) == (0.5, 1e-4, 8)
    assert (lora.rank, lora.alpha, lora.steps, lora.learning_rate) == (2, 2, 50, 1e-4)
    assert lora.end_of_text and lora.importance_sampling and lora.per_concept
    assert config.prompts.count == 30 and config.sampling.height == 512
    assert isinstance(config.masks, GroundedSamMasks)
    assert config.preservation.domain.unit == config.preservation.domain.count


def test_what_is_left_out_is_named() -> None:
    text = convert(read(THEIRS)).text("theirs")
    comments = [line for line in text.splitlines() if line.startswith("#   ")]
    for start in ("max_memory = 100: not needed", "augment = True", "use_gsam_mask = True"):
        assert any(line.startswith(f"#   {start}") for line in comments), start
    for whole in (
        "their_own_idea = 7: unknown",
        "lr_scheduler = cosine: always constant here",
        "aug_length = 40: prompt_len sets the only number",
    ):
        assert f"#   {whole}" in comments
    assert not any("use_gpt" in line or "adam_beta1" in line for line in comments)


def test_objects_without_caches(tmp_path: Path) -> None:
    theirs = SHIP | {"lamb": 1e3, "train_preserve_scale": 0, "fuse_preserve_scale": 0}
    config = composed(theirs, tmp_path)
    [concept] = config.concept_list()
    assert (concept.kind.name, concept.anchor) == ("object", "ground")
    assert config.cfr.closeness == config.fusion.closeness == 1000
    assert config.preservation.prior.count == 0 and not config.kept.people


def test_a_cache_that_is_not_named_weighs_nothing(tmp_path: Path) -> None:
    theirs = SHIP | {"fuse_preserve_scale": 0.1, "preserve_weight": 5.0}
    config = composed(theirs | {"domain_preservation_cache_path": False}, tmp_path)
    assert (config.fusion.prior_weight, config.fusion.domain_weight) == (0.1, 0)
    assert composed(theirs, tmp_path).fusion.domain_weight == 0.5


def test_styles_explicit_words_and_mixed_kinds(tmp_path: Path) -> None:
    pairs = [["Brett-Weston", "style"], ["nudity", "object"], ["cat", "object"]]
    anchors = ["art", "a person wearing clothes", "sky"]
    theirs = {"multi_concept": [pairs], "mapping_concept": anchors, "use_gsam_mask": False}
    config = composed(theirs, tmp_path)
    assert [(c.name, c.kind.name, c.anchor) for c in config.concept_list()] == [
        ("Brett Weston", "style", "art"),
        ("nudity", "explicit", "a person wearing clothes"),
        ("cat", "object", "sky"),
    ]
    assert isinstance(config.masks, NoMasks) and len(config.kept.artists) == 100


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    config = composed(SHIP | {"pretrained_model_name_or_path": "someone/their-model"}, tmp_path)
    assert (config.model.name, config.model.source) == ("path", "someone/their-model")


def test_more_prompts_than_there_are_templates_are_as_many_as_there_are(tmp_path: Path) -> None:
    theirs = SHIP | {"prompt_len": 250}
    assert composed(theirs, tmp_path).prompts.count == 128
    assert remarks(theirs) == "prompt_len = 250: 128 here, as many as there are templates"


def test_anchors_are_flattened_as_names_are(tmp_path: Path) -> None:
    theirs = {"multi_concept": [[["ship", "object"]]], "mapping_concept": [["sky"]]}
    assert composed(theirs, tmp_path).anchors.object == "sky"
    two = [[["ship", "object"], ["cat", "object"]]]
    config = composed({"multi_concept": two, "mapping_concept": [["sky"], ["ground"]]}, tmp_path)
    assert [concept.anchor for concept in config.concept_list()] == ["sky", "ground"]


@pytest.mark.parametrize("names", [["Brett Weston"], ["nudity"], ["Brett Weston", "nudity"]])
def test_kinds_that_fill_the_image_want_no_detector(names: list[str], tmp_path: Path) -> None:
    kinds = {"nudity": "explicit"}
    pairs = [[name, kinds.get(name, "style")] for name in names]
    theirs = {"multi_concept": pairs, "mapping_concept": "a house", "use_gsam_mask": True}
    assert isinstance(composed(theirs, tmp_path).masks, NoMasks)
    assert "trained on whole images" in remarks(theirs)
    person = {"multi_concept": [*pairs, ["Adam Driver", "object"]]}
    assert isinstance(composed(theirs | person, tmp_path).masks, GroundedSamMasks)


PRIOR = {"with_prior_preservation": True, "class_data_dir": "people", "prior_loss_weight": 0.5}


def test_class_images_of_a_folder_are_taken(tmp_path: Path) -> None:
    prior = composed(SHIP | PRIOR | {"preserve_prompt": "a person"}, tmp_path).prior_images
    assert isinstance(prior, FolderPriorImages)
    assert (prior.path, prior.prompt, prior.weight) == ("people", "a person", 0.5)
    off = SHIP | PRIOR | {"with_prior_preservation": False, "preserve_prompt": "a person"}
    assert isinstance(composed(off, tmp_path).prior_images, NoPriorImages)
    assert not remarks(off)


def test_class_images_that_are_not_said_fully_are_named(tmp_path: Path) -> None:
    theirs = SHIP | PRIOR | {"class_data_dir": None, "prior_loss_weight": 0}
    assert isinstance(composed(theirs, tmp_path).prior_images, NoPriorImages)
    for missing in ("class_data_dir", "preserve_prompt", "prior_loss_weight"):
        assert missing in remarks(theirs)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [("no", "float32"), (False, "float32"), ("fp16", "float16"), ("bf16", "bfloat16")],
)
def test_precision(given: object, dtype: str, tmp_path: Path) -> None:
    theirs = SHIP | {"mixed_precision": given}
    assert composed(theirs, tmp_path).model.dtype is Precision[dtype] and not remarks(theirs)
    assert "model.dtype takes" in remarks(SHIP | {"mixed_precision": "fp8"})


def test_where_it_reports(tmp_path: Path) -> None:
    project = {"report_to": "wandb", "tracker_project_name": "theirs"}
    tracking = composed(SHIP | project, tmp_path).tracking
    assert isinstance(tracking, WandbTracking) and tracking.project == "theirs"
    elsewhere = SHIP | {"report_to": ["tensorboard"]}
    assert isinstance(composed(elsewhere, tmp_path).tracking, NoTracking)
    assert "report_to = tensorboard: a run keeps its own record" in remarks(elsewhere)


@pytest.mark.parametrize("key", ["allow_tf32", "use_8bit_adam", "center_crop", "scale_lr"])
def test_what_training_scripts_know_is_named_with_its_reason(key: str) -> None:
    assert remarks(SHIP | {key: True}).startswith(f"{key} = True: ")
    for nothing in (None, False):
        assert not remarks(SHIP | {key: nothing})


def test_reasons_of_numbers_and_of_data() -> None:
    assert not remarks(
        SHIP
        | {"gradient_accumulation_steps": 1, "dataloader_num_workers": 0, "generate_data": True}
        | dict.fromkeys(("their_own_idea", "unused"), None)
    )
    theirs = SHIP | {"gradient_accumulation_steps": 4, "dataloader_num_workers": 2}
    assert "gradient_accumulation_steps = 4: always 1 here" in remarks(theirs)
    assert "dataloader_num_workers = 2: not needed" in remarks(theirs)
    assert "images=folder" in remarks(SHIP | {"generate_data": False})
    assert "unknown" not in remarks(theirs)


def test_a_secret_is_not_written_down() -> None:
    assert remarks(SHIP | {"hub_token": "hf_abc"}) == "hub_token: unknown"


PEOPLE: dict[str, Any] = {
    "multi_concept": [[["adam-driver", "object"], ["Somebody New", "object"]]],
    "mapping_concept": [["a person"]],
    "use_gsam_mask": True,
    "train_preserve_scale": 1e-4,
    "fuse_preserve_scale": "1e-4",
    "preserve_weight": 8e4,
}
NULLS = dict.fromkeys([*NUMBERS, *FIXED, *WITHOUT_COUNTERPART, *(k for _, ks in PARTS for k in ks)])
RANGE: dict[str, dict[str, Any]] = {
    "the least": SHIP,
    "everything null": NULLS | SHIP,
    "people, styles and words": {
        "multi_concept": [["Brett-Weston", "style"], ["nudity", "object"], ["Amy Adams", "object"]],
        "mapping_concept": [["art"], ["a person wearing clothes"], ["a woman"]],
        "preserve_weight": 10,
        "train_preserve_scale": 1,
    },
    "a style alone, with masks": {
        "multi_concept": [["Brett Weston", "style"]],
        "use_gsam_mask": True,
    },
    "names that look like YAML": {
        "multi_concept": [[["Null: {a}", "object"], ["l'Été #2", "object"], ["on", "object"]]],
        "mapping_concept": "a 'thing': [x, y]",
    },
    "an object here, a person by its anchor": SHIP | {"mapping_concept": "a man"},
    "a style of ours, listed as an object": {"multi_concept": [["doodle", "object"]]},
    "domain without prior": PEOPLE | {"prior_preservation_cache_path": False},
    "prior without domain": PEOPLE | {"domain_preservation_cache_path": None},
    "explicit words with a domain": PEOPLE | {"multi_concept": [["nudity", "explicit"]]},
    "a model of one's own": PEOPLE
    | {"pretrained_model_name_or_path": "/models/x y", "variant": "fp16"},
    "lengths": PEOPLE | {"prompt_len": 9999, "aug_length": 3, "resolution": 768},
    "class images": PEOPLE | PRIOR | {"class_prompt": ["a person: any"]},
    "scripts": PEOPLE
    | {"mixed_precision": "bf16", "report_to": "all", "output_dir": "a\nb: c", "hub_token": "x"},
    "unknown things": PEOPLE | {"nested": {"a": [1, {"b": "\n- c"}]}, "text": "# \n---\nx: y"},
}


@pytest.mark.parametrize("theirs", RANGE.values(), ids=RANGE)
def test_every_file_that_is_written_composes(theirs: dict[str, Any]) -> None:
    check(convert(theirs).text("theirs"))


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ("rank: 0", "lora.rank = 0 is out of range"),
        ("resolution: 500", "sampling.height = 500 is no multiple of 8"),
        ("learning_rate: .inf", "lora.learning_rate = inf is out of range"),
        ("lamb: -1", "cfr.closeness = -1 is out of range"),
        ("mapping_concept: ship", "the anchor of 'ship' is 'ship', the concept itself"),
    ],
)
def test_a_file_that_no_run_takes_is_not_written(
    theirs: str,
    message: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(f"multi_concept: [[ship, object]]\n{theirs}\n")
    assert main([str(file)]) == 1
    assert message in caplog.messages[-1] and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"lamb": 1}, "multi_concept names nothing"),
        (SHIP | {"mapping_concept": ["a", "b"]}, "2 anchors for 1 concepts"),
        (SHIP | {"mapping_concept": [[3]]}, "mapping_concept holds 3, which is no text"),
        (SHIP | {"mapping_concept": [None]}, "mapping_concept holds None, which is no text"),
        ({"multi_concept": [[[42, "object"]]]}, "multi_concept holds 42, which is no text"),
        (SHIP | {"rank": float("inf")}, "rank = inf is no whole number"),
        (SHIP | {"rank": "many"}, "rank = 'many' is no whole number"),
        (SHIP | {"use_pooler": 3}, "use_pooler = 3 is neither true nor false"),
    ],
)
def test_what_cannot_be_read_is_refused(theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(theirs)


def test_the_command_prints_the_file_and_never_imports_torch() -> None:
    code = (
        "import sys\nfrom mace_exp.convert.__main__ import main\n"
        f"assert main([{str(THEIRS)!r}]) == 0\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == convert(read(THEIRS)).text("theirs")


def test_keys_may_stand_under_one_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nested = tmp_path / "nested.yaml"
    nested.write_text("THEIRS:\n  multi_concept: [[[cat, object]]]\n  rank: 3\n")
    assert convert(read(nested)).values["lora.rank"] == 3
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert main([str(tmp_path / "list.yaml")]) == 1
    assert "holds no configuration" in caplog.messages[-1]
