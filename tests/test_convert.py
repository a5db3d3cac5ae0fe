"""Configurations of the published implementation become experiment files that compose."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mace_exp.config import composed_run
from mace_exp.convert.__main__ import main, read
from mace_exp.convert.keys import convert
from mace_exp.schemas.data import GroundedSamMasks, NoMasks
from mace_exp.schemas.run import RunConfig

THEIRS = Path(__file__).parent / "data" / "theirs.yaml"
SHIP: dict[str, Any] = {"multi_concept": [[["ship", "object"]]], "mapping_concept": ["ground"]}


def composed(theirs: dict[str, Any], folder: Path) -> RunConfig:
    """Convert, write the file, and compose it as `--config-dir` does."""
    file = folder / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(convert(theirs).text("theirs"))
    return composed_run(f"hydra.searchpath=[file://{folder}]", "experiment=theirs")


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


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"lamb": 1}, "multi_concept names nothing"),
        (SHIP | {"mapping_concept": ["a", "b"]}, "2 anchors for 1 concepts"),
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
