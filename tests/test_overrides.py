"""Settings of single concepts: how they are read, what follows them, and what is refused."""

from dataclasses import fields
from pathlib import Path

import pytest

from mace_exp.cli.arguments import expand
from mace_exp.config.composing import composed_run
from mace_exp.config.options import VARIANTS
from mace_exp.config.run_config import RunConfig
from mace_exp.data.images.folder import Crop, FolderImages
from mace_exp.data.masks.none import NoMasks, WholeMasks
from mace_exp.data.masks.precomputed import PrecomputedMasks
from mace_exp.methods.mace.schema import LoraConfig, LoraInit
from tests.pictures import own_folder

THREE = ("concepts=[Adam Driver,ship,doodle]", "concepts.kinds={ship: object,doodle: style}")


def run_of(overrides: str, *more: str) -> RunConfig:
    return composed_run(*expand([*THREE, *more, f"overrides={overrides}"]))


def test_a_run_without_them_is_the_same_for_all() -> None:
    config = composed_run(*expand(THREE))
    assert config.overrides == {}
    assert config.settings("ship") == config.general()
    assert config.general().lora is config.lora and config.general().masks is config.masks


def test_a_concept_has_its_own_values_and_the_others_the_runs() -> None:
    config = run_of(
        "{ship: {lora.learning_rate: 1e-5, lora.init: kaiming, lora.targets: [to_k]},"
        " doodle: {lora.rank: 4, lora.steps: 100, prompts.count: 10, masks: none}}"
    )
    ship, doodle = config.settings("ship"), config.settings("doodle")
    assert (ship.lora.learning_rate, ship.lora.init, ship.lora.targets) == (
        1e-5,
        LoraInit.kaiming,
        ["to_k"],
    )
    assert (doodle.lora.rank, doodle.lora.steps, doodle.prompts.count) == (4, 100, 10)
    assert doodle.lora.learning_rate == config.lora.learning_rate == 1e-3
    assert isinstance(doodle.masks, NoMasks) and ship.masks == config.masks
    assert config.settings("Adam Driver") == config.general()


@pytest.mark.parametrize(
    ("more", "own", "alpha"),
    [
        ((), "lora.rank: 4", 4),
        ((), "lora.rank: 4, lora.alpha: 2", 2),
        (("lora.rank=2",), "lora.steps: 7", 2),
        (("lora.alpha=8",), "lora.rank: 4", 8),
        (("lora.rank=3",), "lora.alpha: '${lora.rank}', lora.rank: 2", 3),
    ],
)
def test_alpha_follows_the_rank_until_it_is_given(
    more: tuple[str, ...], own: str, alpha: float
) -> None:
    config = run_of(f"{{ship: {{{own}}}}}", *more)
    assert config.settings("ship").lora.alpha == alpha
    assert config.settings("doodle").lora == config.lora


def test_a_mapping_says_the_same_as_dots_in_files_and_in_sweeps(tmp_path: Path) -> None:
    dotted = run_of("{ship: {lora.rank: 4, lora.steps: 7}}").overrides
    assert dotted == {"ship": {"lora.rank": 4, "lora.steps": 7, "lora.alpha": 4.0}}
    assert run_of("{ship: {lora: {rank: 4, steps: 7}}}").overrides == dotted
    job = composed_run(
        *expand([*THREE, "overrides.ship.lora.rank=4", "overrides.ship.lora.steps=7"])
    )
    assert job.overrides == dotted
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\noverrides:\n  ship:\n    lora: {rank: 4}\n    lora.steps: 7\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    search = f"hydra.searchpath=['file://{tmp_path}']"
    assert composed_run(search, "experiment=mine", *expand(THREE)).overrides == dotted


def test_settings_in_a_program_need_no_quoting() -> None:
    values = {"concepts.names": ["Conan O'Brien"], "overrides": {"Conan O'Brien": {"lora.rank": 2}}}
    assert composed_run("concepts=custom", values=values).settings("Conan O'Brien").lora.rank == 2


def test_every_key_that_a_concept_may_have_is_one_of_its_group() -> None:
    groups = (VARIANTS[name].values() for name in ("prompts", "images", "masks"))
    for schema in (LoraConfig, *(each for group in groups for each in group)):
        keys = schema.concept_keys  # type: ignore[attr-defined]
        assert set(keys) <= {field.name for field in fields(schema)}, schema
    runs = {field.name for field in fields(LoraConfig)} - set(LoraConfig.concept_keys)
    assert runs == {
        *("batch_size", "concepts_per_batch", "gradient_checkpointing"),
        *("per_concept", "snapshots"),
    }


def test_a_concept_may_have_images_of_its_own(tmp_path: Path) -> None:
    own_folder(tmp_path / "all", "Adam Driver", "ship", "doodle")
    own_folder(tmp_path / "better", "ship", masks="none")
    folder = ("images=folder", f"images.path={tmp_path / 'all'}", "masks=precomputed")
    better = f"images.path: {tmp_path / 'better'}, images.crop: random"
    config = run_of(f"{{ship: {{{better}, masks: whole}}}}", *folder)
    ship = config.settings("ship")
    assert isinstance(ship.images, FolderImages) and isinstance(ship.masks, WholeMasks)
    assert (ship.images.path, ship.images.crop) == (str(tmp_path / "better"), Crop.random)
    assert isinstance(config.settings("doodle").masks, PrecomputedMasks)
    with pytest.raises(
        ValueError, match=r"overrides\.ship\.images\.path = .*better/ship has no masks"
    ):
        run_of(f"{{ship: {{{better}}}}}", *folder)
    with pytest.raises(ValueError, match=r"overrides\.ship\.masks\.path = /no "):
        run_of("{ship: {masks.path: /no}}", *folder)
    with pytest.raises(
        ValueError, match=r"overrides\.ship\.images\.path = /no: /no is not a folder"
    ):
        run_of("{ship: {images.path: /no}}", *folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("{shp: {lora.rank: 4}}", "overrides names 'shp', which is not erased in this run: the"),
        ("{ship: {lora.rnak: 4}}", "overrides.ship.lora.rnak = 4: "),
        ("{ship: {lora.rnak: 4}}", "you mean overrides.ship.lora.rank?"),
        ("{ship: {rank: 4}}", "overrides.ship.rank = 4: "),
        ("{ship: {rank: 4}}", "Did you mean overrides.ship.lora.rank?"),
        ("{ship: {lora.batch_size: 2}}", "give lora.batch_size=2 for the run"),
        ("{ship: {lora.concepts_per_batch: 2}}", "give lora.concepts_per_batch=2 for the run"),
        ("{ship: {lora.snapshots: 2}}", "overrides.ship.lora.snapshots = 2: "),
        ("{ship: {sampling.steps: 2}}", "give sampling.steps=2 for the run"),
        ("{ship: {masks.path: x}}", "overrides.ship.masks.path = x: "),
        ("{ship: {images.crop: none}}", "overrides.ship.images.crop = none: "),
        ("{ship: {lora: 3}}", "overrides.ship.lora = 3: "),
        ("{ship: {lora.rank: abc}}", "overrides.ship.lora.rank = abc: it takes a whole number"),
        ("{ship: {lora.rank: null}}", "overrides.ship.lora.rank = null: it takes a whole number"),
        ("{ship: {lora.init: gausian}}", "overrides.ship.lora.init: 'gausian' "),
        ("{ship: {lora.rank: 0}}", "overrides.ship.lora.rank = 0 is out of range: it must be at"),
        ("{ship: {lora.rank: 0}}", "as in overrides.ship.lora.rank=1"),
        ("{ship: {lora.rank: ???}}", "overrides.ship.lora.rank is not set: give overrides.ship"),
        ("{ship: {masks.threshold: 2}}", "overrides.ship.masks.threshold = 2 is out of range"),
        ("{ship: {lora.t1: 500}}", "overrides.ship.lora.t1 = 500 is not below lora.t2 = 400"),
        ("{ship: {lora.targets: [to_kk]}}", "overrides.ship.lora.targets = ['to_kk'] names to_kk"),
        ("{ship: {lora.targets: [to_q]}}", "overrides.ship.lora.targets names to_q"),
        ("{ship: {prompts.count: 300}}", "overrides.ship.prompts.count = 300: "),
        (
            "{ship: {masks: attention}}",
            "overrides.ship.masks = attention: ",
        ),
        ("{ship: {masks: none, masks.threshold: 0.3}}", "masks.threshold = 0.3 "),
        ("{doodle: {masks.threshold: 0.3}}", "doodle is of kind style, which fills the image and"),
        ("{doodle: {masks: whole}}", "overrides.doodle.masks = whole: doodle is of kind style"),
        ("{ship: {lora.rank: 4, lora: {rank: 2}}}", "overrides.ship.lora.rank is given twice"),
        ("{ship: 4}", "as in overrides='{ship: {lora.rank: 4}}'"),
        ("{ship: null}", "overrides.ship: field 'overrides.ship' is not Optional"),
        ("[ship]", "it takes keys with values, as in {key: value}; here is a list"),
    ],
)
def test_what_a_concept_cannot_have_is_refused(overrides: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        run_of(overrides)
    assert message in str(refused.value)


def test_all_that_is_wrong_is_said_together() -> None:
    with pytest.raises(ValueError) as refused:
        run_of("{ship: {lora.rank: 0, lora.steps: 0}, doodle: {lora.rnak: 2}}")
    said = [line.split(" ")[0] for line in str(refused.value).splitlines()]
    keys = ("ship.lora.rank", "ship.lora.alpha", "ship.lora.steps", "doodle.lora.rnak")
    assert said == [f"overrides.{key}" for key in keys], "alpha follows the rank, as in a run"


def test_one_lora_for_all_is_trained_in_one_way() -> None:
    joint = "lora.per_concept=false"
    config = run_of("{ship: {lora.end_of_text: false, prompts.count: 4, masks: none}}", joint)
    assert not config.settings("ship").lora.end_of_text and config.lora.end_of_text
    with pytest.raises(ValueError, match=r"ship\.lora\.rank = 4 with lora\.per_concept = false"):
        run_of("{ship: {lora.rank: 4}}", joint)


def test_words_to_look_for_are_there_where_masks_are_found_by_words() -> None:
    found = ("masks=grounded_sam", "masks.allow_download=true")
    masks = run_of("{ship: {masks.words: [hull,sail]}}", *found).settings("ship").masks
    assert getattr(masks, "words", None) == ["hull", "sail"]
    with pytest.raises(ValueError, match=r"overrides\.ship\.masks\.words = \[\] "):
        run_of("{ship: {masks.words: []}}", *found)
    with pytest.raises(ValueError, match=r"masks\.words = ill: "):
        run_of("{ship: {masks.words: ill}}")
