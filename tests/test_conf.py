"""conf/: every file composes, alone and with its defaults; the published lists are complete."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from mace_exp.cli.help import LAUNCHERS, groups
from mace_exp.concepts.concept import Kind
from mace_exp.config.composing import composed_run
from mace_exp.config.hydra_shortcuts import plain_hydra
from mace_exp.config.options import VARIANTS, register
from mace_exp.config.run_config import RunConfig
from mace_exp.utils.conf import CONF
from tests.composing import composed

NAMES = Path(__file__).parents[2] / "shared" / "names.csv"
WEIGHTS = [f"{stage}.{term}_weight" for stage in ("cfr", "fusion") for term in ("prior", "domain")]
FILES = sorted(file.relative_to(CONF) for file in CONF.rglob("*.yaml"))
OPTIONS = [file for file in FILES if file.parent.name and file.parts[0] != "hydra"]


def test_every_file_is_composed() -> None:
    """As an option of a group below, in every run, or as a launcher (tests/test_launchers.py)."""
    launchers = {file for file in FILES if file.parent == Path("hydra", "launcher")}
    always = {Path("config.yaml"), Path("hydra", "default.yaml")}
    always.add(Path("hydra", "job_logging", "mace_exp.yaml"))
    assert {*OPTIONS, *launchers, *always} == set(FILES)
    assert {file.suffix for file in CONF.rglob("*") if file.is_file()} == {".yaml"}
    assert {file.parts[0] for file in OPTIONS} == {each.name for each in groups()} - {LAUNCHERS}


@pytest.mark.parametrize("file", OPTIONS, ids=str)
def test_every_option_composes(file: Path, tmp_path: Path) -> None:
    needs = {
        "images/folder": [
            "concepts.names=[cat]",
            "concepts.kind=object",
            f"images.path={tmp_path}",
        ],
        "masks/precomputed": [
            "concepts.names=[cat]",
            "concepts.kind=object",
            "images.per_concept=1",
            f"masks.path={tmp_path / 'masks'}",
        ],
        "prior_images/folder": [
            f"prior_images.path={tmp_path / 'cat'}",
            "prior_images.prompt=a cat",
        ],
        "prior_images/lists": [
            f"prior_images.images={tmp_path / 'images.txt'}",
            f"prior_images.prompts={tmp_path / 'captions.txt'}",
        ],
        "prompts/file": [f"prompts.path={tmp_path / 'templates.txt'}", "prompts.count=1"],
        "prompts/llm": ["prompts.base_url=http://a/v1", "prompts.model=b", "prompts.key_env=null"],
        "judge/clip": ["judge.allow_download=true"],
        "judge/command": ["judge.command=ls"],
        "judge/faces": ["evaluation=none", "judge.references=a", "judge.recogniser=b.onnx"],
        "attack/paraphrase": [f"attack.file={tmp_path / 'templates.txt'}"],
        "attack/paraphrase_llm": ["attack.llm.base_url=http://a/v1", "attack.llm.model=b"]
        + ["attack.llm.key_env=null"],
        "masks/grounded_sam": ["masks.allow_download=true"],
        "concepts/custom": ["concepts.names=[Adam Driver]"],
        "preservation/captions": [f"preservation.prior.file={tmp_path / 'captions.txt'}"],
        "preservation/cached": [
            f"preservation.prior.cache={tmp_path / 'captions.txt'}",
            f"preservation.domain.cache={tmp_path / 'captions.txt'}",
        ],
        "model/path": ["model.source=someone/some-model", "model.allow_download=true"],
        "kept/none": ["preservation.domain_weight=0"],
        "kept/object_10": ["preservation.domain_weight=0"],
    }
    for name in ("artist_100", "celebrity_1", "celebrity_5", "celebrity_10", "celebrity_100"):
        needs[f"experiment/published/{name}"] = needs["preservation/cached"]
    needs["experiment/published/explicit_4"] = needs["preservation/cached"][:1]
    (tmp_path / "captions.txt").write_text("a house\n")
    (tmp_path / "templates.txt").write_text("a photo of {} in a kitchen\n")
    (tmp_path / "images.txt").write_text("cat/1.png\n")
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "1.png")
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    Image.new("L", (96, 96)).save(tmp_path / "masks" / "cat" / "0.png")
    group, _, option = file.with_suffix("").as_posix().partition("/")
    config = composed(f"{group}={option}", *needs.get(f"{group}/{option}", []))
    assert config.concept_list()


EXPERIMENTS = sorted((CONF / "experiment").rglob("*.yaml"))


def _sets(file: Path) -> set[tuple[str, ...]]:
    """Return the keys that an experiment file sets, of options that it does not choose."""

    def walk(node: dict[str, object], place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, (*place, key))
            else:
                yield (*place, key)

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content.pop("defaults")
    return set(walk(content, ()))


def _options_of(group: str) -> list[Any]:
    """Compose the run with each option of a group."""
    names = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = [compose("config", overrides=[f"{group}={name}"])[group] for name in names]
    return [OmegaConf.to_container(each, resolve=False) for each in found]


def test_every_experiment_fits_every_option_of_every_group() -> None:
    """A key that the chosen option lacks would be an error of the file, shown to its user."""
    register()
    keys = {key for file in EXPERIMENTS for key in _sets(file) if len(key) > 1}
    assert {group for group, *_ in keys} >= {"lora", "cfr", "fusion"}
    for group in sorted({group for group, *_ in keys}):
        for option in _options_of(group):
            for key in (key[1:] for key in keys if key[0] == group):
                node = option
                for part in key:
                    assert part in node, f"{group}.{'.'.join(key)}"
                    node = node[part]


OTHER_MASKS = ("attention", "precomputed", "none", "whole", "grounded_sam_hub")


@pytest.mark.parametrize("masks", OTHER_MASKS)
def test_published_experiments_take_other_masks(masks: str) -> None:
    """Each option with a third of the experiments, of people and of objects: each is composed.

    That the keys which an experiment sets fit all options is checked above.
    """
    names = sorted(file.stem for file in (CONF / "experiment" / "published").glob("*.yaml"))
    assert len(names) == 9
    for name in (f"published/{each}" for each in names[OTHER_MASKS.index(masks) % 3 :: 3]):
        composed = composed_run(
            f"experiment={name}",
            f"masks={masks}",
            "preservation=none",
            "cfr.weights={}",
            files=False,
            values=dict.fromkeys(WEIGHTS, 0.0),
        )
        assert isinstance(composed.masks, VARIANTS["masks"][masks.removesuffix("_hub")])


def test_what_is_composed_quickly_is_what_hydra_composes() -> None:
    """conftest spares Hydra what it does again; here it does all of it."""
    chosen = ("experiment=celebrity_10", "masks=whole", "lora.rank=3", "model=sdxl")
    quick = composed_run(*chosen)
    with plain_hydra():
        assert composed_run(*chosen) == quick


@pytest.mark.parametrize("file", OPTIONS, ids=str)
def test_every_option_begins_by_saying_what_it_is(file: Path) -> None:
    lines = (CONF / file).read_text().splitlines()
    group, _, option = file.with_suffix("").as_posix().partition("/")
    if group in ("experiment", "sweep"):
        assert lines[0] == "# @package _global_"
        lines = lines[1:]
        assert lines[0].startswith(f"# python -m mace_exp {group}={option}")
    assert lines[0].startswith("# ") and len(lines[0]) > 5


def test_a_group_is_a_field() -> None:
    groups = {file.parts[0] for file in OPTIONS} - {"experiment", "sweep"}
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    assert groups <= fields
    others = {"stages", "seed", "device", "cache_dir", "overrides", "resume", "revises"}
    assert fields - groups == others
    assert set(VARIANTS) <= groups


def test_variants_of_a_group_share_its_schema() -> None:
    hints = get_type_hints(RunConfig)
    for group, variants in VARIANTS.items():
        base = hints[group]
        assert isinstance(base, type)
        assert all(issubclass(variant, base) for variant in variants.values())


def test_no_schema_has_a_default() -> None:
    def walk(schema: type) -> None:
        for field in dataclasses.fields(schema):
            assert field.default is dataclasses.MISSING, f"{schema.__name__}.{field.name}"
            assert field.default_factory is dataclasses.MISSING, f"{schema.__name__}.{field.name}"
        for kind in get_type_hints(schema).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                walk(kind)

    walk(RunConfig)
    for variants in VARIANTS.values():
        for variant in variants.values():
            walk(variant)


def test_stable_diffusion_brings_its_own_settings_along() -> None:
    mini, large = composed(), composed("model=sd_v1_4")
    assert (mini.lora.learning_rate, mini.lora.batch_size, mini.lora.rank) == (1e-3, 4, 1)
    assert (large.lora.learning_rate, large.lora.batch_size, large.lora.rank) == (1e-4, 1, 1)
    assert (mini.sampling.steps, mini.sampling.guidance) == (6, 4)
    assert (large.sampling.steps, large.sampling.guidance) == (50, 7.5)
    assert (mini.lora.concepts_per_batch, large.lora.concepts_per_batch) == (8, 1)
    assert mini.save.pipeline and not large.save.pipeline
    assert composed("model=sd_v1_4", "sampling=mini").sampling.steps == 6


def test_the_closed_forms_take_over_the_preservation_weights() -> None:
    config = composed("preservation.prior_weight=7", "fusion.prior_weight=9")
    assert (config.cfr.prior_weight, config.fusion.prior_weight) == (7, 9)
    none = composed("preservation=none")
    assert none.cfr.prior_weight == none.fusion.domain_weight == 0


def test_every_sweep_runs_several_jobs() -> None:
    for file in (CONF / "sweep").glob("*.yaml"):
        hydra = yaml.safe_load(file.read_text())["hydra"]
        assert hydra["mode"] == "MULTIRUN"
        for key, values in hydra["sweeper"]["params"].items():
            assert len(values.split(",")) > 1
            composed(f"{key}={values.split(',')[-1]}")


@pytest.mark.skipif(not NAMES.exists(), reason="the published list is not beside this checkout")
@pytest.mark.parametrize(
    ("option", "kind", "count"),
    [
        ("celebrity_1", "person", "1"),
        ("celebrity_5", "person", "5"),
        ("celebrity_10", "person", "10"),
        ("celebrity_100", "person", "100"),
        ("artist_100", "artist", "100"),
    ],
)
def test_published_lists_are_complete(option: str, kind: str, count: str) -> None:
    with NAMES.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == kind]
    config = composed(f"concepts={option}", "kept=artist_100" if kind == "artist" else "seed=0")
    erased = [row["name"] for row in rows if count in row["erased_in"].split()]
    kept = [row["name"] for row in rows if row["split"] == "preserved"]
    assert config.concepts.names == erased and len(erased) == int(count)
    assert (config.kept.artists if kind == "artist" else config.kept.people) == kept


def test_erased_and_kept_people_are_not_the_same() -> None:
    config = composed("concepts=celebrity_100")
    assert len(config.kept.people) == 100
    assert not set(config.kept.people) & set(config.concepts.names)
    assert config.concept_list()[0].kind is Kind.person
