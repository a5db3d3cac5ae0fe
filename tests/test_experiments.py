"""The published settings: their numbers, and that they run on a tiny random model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mace_exp.config.run_config import RunConfig
from mace_exp.data.images.generated import GeneratedImages
from mace_exp.data.masks.grounded_sam import GroundedSamMasks
from mace_exp.data.masks.none import NoMasks
from mace_exp.models.fingerprints import text_fingerprint
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.preservation.statistics import PreservationStatistics, preservation_statistics
from mace_exp.preservation.terms import Preservation
from mace_exp.recipe import Recipe
from mace_exp.runs.result import Result
from mace_exp.stage_plan import stage_works
from mace_exp.utils.conf import CONF
from tests.composing import composed
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_detectors import save_detector, save_segmenter

PUBLISHED = sorted(
    file.stem for file in (CONF / "experiment").glob("*.yaml") if not file.stem.startswith("mini_")
)
IMPORTED = sorted(file.stem for file in (CONF / "experiment" / "published").glob("*.yaml"))
OF_EACH_SORT = ("artist_100", "celebrity_1", "celebrity_5", "explicit_4", "object_ship")
"""One setting of each kind of concept, of one person and of several: they are run as a whole."""
SMALL = (
    "sampling.steps=1",
    "sampling.batch_size=16",
    "images.per_concept=1",
    "prompts.count=2",
    "lora.steps=1",
    "evaluation.images_per_part=1",
    "evaluation.bystander_images=1",
    "evaluation.attention_maps=0",
    "tracking=none",
)
FEW_CAPTIONS = ("preservation.prior.count=8", "preservation.domain.count=8")
TWO_OF_MANY = {
    "celebrity_100": "concepts.names=[Adam Driver,Amy Adams]",
    "artist_100": "concepts.names=[Brett Weston,Brian Froud]",
}
Command = Callable[..., Path]


@pytest.fixture(scope="module")
def raw_sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as an import leaves it: a raw sum that counts as one prompt."""
    pipeline = tiny_pipeline()
    captions = ["a photo of a horse", "a red ship at night", "a man in the snow"]
    encoder = stable_diffusion_encoder(pipeline)
    made = preservation_statistics(encoder, captions, text_fingerprint(pipeline))
    path = tmp_path_factory.mktemp("sums") / "raw.safetensors"
    type(made)(made.total, 1, made.fingerprint, made.prompts_hash).save(path)
    return path


@pytest.fixture
def run(command: Callable[..., None], tmp_path: Path, tiny_folder: Path, cache: Path) -> Command:
    """Run a command on the tiny model in this process; return the run's folder."""

    def experiment(*arguments: str) -> Path:
        folder = tmp_path / "run"
        where = [f"model.source={tiny_folder}", f"cache_dir={cache}", f"hydra.run.dir={folder}"]
        command(*arguments, *where, *SMALL)
        return folder

    return experiment


def assert_finished(folder: Path) -> None:
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"
    assert "erased" in json.loads((folder / "metrics.json").read_text())
    edit, original = load_file(folder / "edit.safetensors"), tiny_pipeline().unet.state_dict()
    assert edit
    assert not any(torch.equal(edit[n], original[n.removeprefix("unet.")]) for n in edit)


def smaller(name: str) -> list[str]:
    """Return what makes a published setting small: two of a hundred names, and few captions."""
    more = [TWO_OF_MANY[name]] if name in TWO_OF_MANY else []
    few = FEW_CAPTIONS if weights(composed(f"experiment={name}"))[1] != (0, 0) else ()
    return [*more, *few]


@pytest.mark.parametrize("name", OF_EACH_SORT)
def test_published_settings_run(run: Command, name: str) -> None:
    assert_finished(run(f"experiment={name}", *smaller(name)))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in OF_EACH_SORT])
def test_every_published_setting_fits_the_model_and_refines_it(name: str, tmp_path: Path) -> None:
    """Those that differ from a setting which is run above in names and numbers alone."""
    recipe = recipe_in(
        tmp_path, f"experiment={name}", *smaller(name), *SMALL, pipeline=tiny_pipeline()
    )
    assert_fits(recipe)


def assert_fits(recipe: Recipe) -> None:
    recipe.check()
    assert {"images", "masks", "cfr", "lora", "fusion", "samples"} <= {*stage_works(recipe)}
    transform = recipe.method.refinement.value  # type: ignore[attr-defined]
    assert transform.isfinite().all() and not torch.equal(transform, torch.eye(len(transform)))


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Tiny random ones, in the place of those that the hub has."""
    root = tmp_path_factory.mktemp("detectors")
    return (
        f"masks.detector={save_detector(root / 'dino')}",
        f"masks.segmenter={save_segmenter(root / 'sam')}",
        "masks.allow_download=false",
        "masks.box_threshold=0.1",  # below some of its random scores
    )


def imported(name: str, cache: Path) -> list[str]:
    """Return the caches that a published experiment wants: objects none, explicit words one."""
    parts = {"object": (), "explicit": ("prior",)}.get(name.split("_")[0], ("prior", "domain"))
    return [f"preservation.{part}.cache={cache}" for part in parts]


def with_imports(name: str, raw_sums: Path, detectors: tuple[str, ...]) -> list[str]:
    """Return the arguments of a published experiment that has its caches and its detectors."""
    more = [TWO_OF_MANY[name]] if name in TWO_OF_MANY else []
    more += [*imported(name, raw_sums), *(detectors if is_masked(name) else ())]
    return [f"experiment=published/{name}", *more]


def is_masked(name: str) -> bool:
    return name.startswith(("celebrity_", "object_"))


@pytest.mark.parametrize("name", [name for name in IMPORTED if name in OF_EACH_SORT])
def test_imported_caches_run(
    run: Command, raw_sums: Path, detectors: tuple[str, ...], name: str
) -> None:
    folder = run(*with_imports(name, raw_sums, detectors))
    assert_finished(folder)
    assert bool(list((folder / "masks").glob("*.png"))) == is_masked(name)


@pytest.mark.parametrize("name", [name for name in IMPORTED if name not in OF_EACH_SORT])
def test_imported_caches_fit_the_model_and_refine_it(
    raw_sums: Path, detectors: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    given = with_imports(name, raw_sums, detectors)
    assert_fits(recipe_in(tmp_path, *given, *SMALL, pipeline=tiny_pipeline()))


@pytest.mark.parametrize("name", IMPORTED)
def test_published_masks_are_those_of_grounded_sam(name: str) -> None:
    given = composed(f"experiment=published/{name}", *imported(name, CONF / "config.yaml"))
    if name.startswith(("celebrity_", "object_")):
        assert isinstance(given.masks, GroundedSamMasks) and given.masks.allow_download
        with pytest.raises(ValueError, match="downloads are off"):
            composed(f"experiment={name}", "masks=grounded_sam")
    else:
        assert isinstance(given.masks, NoMasks)
    assert not isinstance(composed(f"experiment={name}").masks, GroundedSamMasks)


def weights(config: RunConfig) -> tuple[tuple[float, float], tuple[float, float]]:
    cfr, fusion = config.cfr, config.fusion
    return (cfr.prior_weight, cfr.domain_weight), (fusion.prior_weight, fusion.domain_weight)


OBJECTS = {"ship": ("ground", 1e3), "automobile": ("sky", 1e2), "bird": ("street", 1e1)}
CELEBRITIES = {1: 8e3, 5: 5e4, 10: 8e4, 100: 2e5}


def test_there_is_a_file_for_every_published_setting() -> None:
    classes = composed("experiment=object_ship").kept.objects
    objects = [f"object_{name}" for name in classes]
    preserving = ["artist_100", *(f"celebrity_{n}" for n in CELEBRITIES), "explicit_4"]
    assert sorted(PUBLISHED) == sorted([*objects, *preserving]) and len(objects) == 10
    given = [f"object_{name}" for name in OBJECTS]
    assert sorted(IMPORTED) == sorted([*preserving, *given])


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_settings_share(name: str) -> None:
    config = composed(f"experiment={name}")
    lora = config.lora
    assert config.model.source == "CompVis/stable-diffusion-v1-4"
    assert (lora.rank, lora.alpha, lora.batch_size, lora.max_grad_norm) == (1, 1, 1, 1)
    assert lora.end_of_text and not config.cfr.all_words
    assert isinstance(config.images, GeneratedImages)
    assert (config.prompts.count, config.images.per_concept) == (30, 8)
    slow = name.startswith(("object_", "explicit_"))
    assert lora.learning_rate == (1e-5 if slow else 1e-4)
    assert lora.steps == (120 if name == "explicit_4" else 50)
    assert lora.importance_sampling == (name != "explicit_4")
    assert config.cfr.closeness == config.fusion.closeness


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("object_")])
def test_published_objects(name: str) -> None:
    config = composed(f"experiment={name}")
    [concept] = config.concept_list()
    assert weights(config) == ((0, 0), (0, 0)) and config.cfr.closeness > 0
    if concept.name in OBJECTS:
        assert (concept.anchor, config.cfr.closeness) == OBJECTS[concept.name]


@pytest.mark.parametrize("count", CELEBRITIES)
def test_published_celebrities(count: int) -> None:
    config = composed(f"experiment=celebrity_{count}")
    ratio = CELEBRITIES[count]
    assert weights(config) == (
        (1e-8, pytest.approx(1e-8 * ratio)),
        (1e-4, pytest.approx(1e-4 * ratio)),
    )
    anchors = {concept.anchor for concept in config.concept_list()}
    assert anchors == {"a woman" if count == 1 else "a person"}
    assert len(config.concepts.names) == count and config.cfr.closeness == 0


def test_published_artists_and_explicit_words() -> None:
    artists, explicit = composed("experiment=artist_100"), composed("experiment=explicit_4")
    assert weights(artists) == ((1e-8, 8e-4), (1e-4, 8))
    assert weights(explicit) == ((4.9e-13, 0), (7e-7, 0))
    assert artists.cfr.closeness == explicit.cfr.closeness == 0
    assert {each.anchor for each in artists.concept_list()} == {"art"}
    assert {each.anchor for each in explicit.concept_list()} == {"a person wearing clothes"}
    assert len(artists.kept.artists) == len(artists.concepts.names) == 100


def test_own_captions_stand_for_raw_sums_and_imported_caches_are_such() -> None:
    own = composed("experiment=celebrity_10").preservation
    assert own.domain.unit == own.domain.count and own.prior.unit > own.prior.count
    file = f"={CONF / 'config.yaml'}"
    caches = [f"preservation.{part}.cache{file}" for part in ("prior", "domain")]
    imported = composed("experiment=published/celebrity_10", *caches)
    assert (imported.preservation.prior.unit, imported.preservation.domain.unit) == (1, 1)
    assert weights(imported) == weights(composed("experiment=celebrity_10"))


UNITS = {
    "a raw sum, multiplied again": (414113, 1, 1e-4, "give preservation.prior.unit=1"),
    "published weights on a cache of ours": (1, 3, 1e-8, "give preservation.prior.unit=3"),
    "captions that stand for others": (414113, 3, 1e-8, "3 captions stand for 414113"),
    "a raw sum": (1, 1, 1e-8, ""),
    "a unit of its own captions": (3, 3, 1e-8, ""),
    "prompts' worth": (1, 3, 300, ""),
}


@pytest.mark.parametrize(("unit", "count", "weight", "said"), UNITS.values(), ids=UNITS)
def test_a_unit_that_does_not_fit_the_sum_is_told(
    unit: int,
    count: int,
    weight: float,
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = tiny_pipeline()
    total = torch.eye(32, dtype=torch.float64)
    cache = tmp_path / "sum.safetensors"
    PreservationStatistics(total, count, text_fingerprint(pipeline), "0" * 32).save(cache)
    weights = ("preservation.domain_weight=0", f"preservation.prior_weight={weight}")
    given = (f"preservation.prior.cache={cache}", f"preservation.prior.unit={unit}")
    recipe = recipe_in(tmp_path, "cfr=default", *weights, *given, pipeline=pipeline)
    with caplog.at_level("INFO", "mace_exp.stages.preservation"):
        assert recipe.preservation.terms["prior"].value.count == count
    assert (said in caplog.text) if said else not caplog.text


@pytest.mark.parametrize("name", ["celebrity_1", "explicit_4"])
def test_closeness_zero_is_enough_at_the_width_of_stable_diffusion(
    name: str, tmp_path: Path
) -> None:
    """The words of thirty prompts fill 768 directions, however little the captions weigh; those of
    one prompt a concept do not, and closeness is named."""
    pipeline = tiny_pipeline(width=768, context_length=40)

    def refined(*more: str) -> torch.Tensor:
        few = ("preservation.prior.count=50", "preservation.domain.count=50")
        settings = (f"experiment={name}", *few, "images.per_concept=1", *more)
        config = composed(*settings)
        method: Any = recipe_in(tmp_path, *settings, pipeline=pipeline).method
        assert config.method.name == "mace"
        return method.refinement.value

    assert refined().isfinite().all()
    nothing_else = ("cfr.prior_weight=0", "cfr.domain_weight=0", "prompts.count=1")
    with pytest.raises(ValueError, match="closeness does, is enough; raise cfr.closeness"):
        refined(*nothing_else)
    assert refined(*nothing_else, "cfr.closeness=1e-3").isfinite().all()


def test_a_unit_of_n_makes_a_weight_that_of_the_raw_sum_over_n() -> None:
    captions = 3
    total = torch.eye(2, dtype=torch.float64) * 12
    statistics = PreservationStatistics(total, captions, "any", "any")
    held = Preservation({"prior": Result("key", lambda: statistics)}, {"prior": captions})
    preserved = held.weighted({"prior": 1e-4, "domain": 0})
    torch.testing.assert_close(preserved, 1e-4 * total, rtol=1e-12, atol=0)
