"""Check the files, folders and models that a configuration names, before torch is imported."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from mace_exp.concepts.captions import NoSuchColumn
from mace_exp.concepts.prompts import evaluation_prompts
from mace_exp.config.run_config import RunConfig
from mace_exp.data.files import Size
from mace_exp.evaluation.bystanders import kept_subjects
from mace_exp.evaluation.prompts import Subject
from mace_exp.models.sources import location_of, native_size
from mace_exp.preservation.schema import term_key
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.schema import WandbMode, WandbTracking

_NEED_WANDB = (WandbMode.online, WandbMode.offline)


def missing_files(config: RunConfig) -> Iterator[str]:
    """Yield a message for each named file or folder that is missing or unsuitable."""
    model, reads = config.model, config.method.reads()
    if model.source is not None:
        try:
            location_of(model)
        except ValueError as error:
            yield f"model.source = {model.source}: {error}"
    yield from dict.fromkeys(_of_concepts(config))
    if "prior_images" in reads:
        yield from config.prior_images.problems()
    yield from config.prompts.problems()
    if "masks" in reads:
        yield from config.masks.problems(config.images)
    evaluation = config.evaluation.active()
    if evaluation is not None:
        yield from evaluation.missing_files()
    attack = config.attack.active()
    if attack is not None and "attacks" in config.chosen_stages():
        yield from attack.missing(config.concept_list())
    yield from _missing_wandb(config)
    yield from _misjudged_size(config)
    yield from _missing_for_judge(config)
    yield from _missing_captions(config)
    if config.revises and not RunFolder(Path(config.revises)).config.is_file():
        yield f"revises = {config.revises} is no run folder: it has no config.yaml"


def _missing_captions(config: RunConfig) -> Iterator[str]:
    for name, term in config.preservation.by_name().items():
        if term.file is not None and not Path(term.file).is_file():
            yield (f"{term_key(name)}.file = {term.file} is not a file: give one caption per line")
        elif term.file is not None:
            try:
                term.read_file()
            except NoSuchColumn as error:
                yield f"{term_key(name)}.file: {error} ({term_key(name)}.column=...)"
            except ValueError as error:
                yield f"{term_key(name)}.file: {error}"
        elif term.column is not None:
            yield (
                f"{term_key(name)}.column = {term.column} is of no file: give {term_key(name)}.file"
                " too, or leave it out"
            )
        if term.cache is not None and not Path(term.cache).is_file():
            yield (
                f"{term_key(name)}.cache = {term.cache} is not a file: give one that `python -m "
                "mace_exp.preservation` wrote"
            )


def _of_concepts(config: RunConfig) -> Iterator[str]:
    """Yield a message for each concept whose prompts, images or masks are missing; it begins with
    the key that names them."""
    size, reads = drawn_size(config), config.method.reads()
    evaluation = config.evaluation.active()
    templates = 0 if evaluation is None else evaluation.templates
    for concept in config.concept_list():
        settings = config.settings(concept.name)
        given = config.overrides.get(concept.name, {})
        measured = evaluation_prompts(concept.name, concept.kind, templates)
        messages = list(settings.prompts.concept_problems(concept, measured))
        if "images" in reads:
            messages += settings.images.problems(concept)
        if "masks" in reads and not messages:
            messages += settings.masks.concept_problems(concept, settings.images, size)
        for message in messages:
            key = message.split(" ")[0].rstrip(":")
            yield f"overrides.{concept.name}.{message}" if key in given else message


def drawn_size(config: RunConfig) -> Size | None:
    """Return the (height, width) of the images that the model draws, or None if unknown."""
    model, sampling = config.model, config.sampling
    if sampling.height is not None and sampling.width is not None:
        return sampling.height, sampling.width
    try:
        location = location_of(model)
    except ValueError:  # a missing model is reported separately
        return None
    native = native_size(location)
    return native and (sampling.height or native[0], sampling.width or native[1])


def _misjudged_size(config: RunConfig) -> Iterator[str]:
    """Yield a message if the model does not draw images of the judge's input size."""
    side = config.judge.side
    if side is None or not config.measures():
        return
    size = drawn_size(config)
    if size not in (None, (side, side)):
        source = config.model.source
        yield (
            f"judge = {config.judge.name} reads only images of {side} x {side}, and "
            f"model.source = {source} draws {size[1]} x {size[0]}: give judge=none, or "
            f"sampling.height={side} sampling.width={side}"
        )


def _missing_for_judge(config: RunConfig) -> Iterator[str]:
    """Yield a message for whatever the judge needs and does not have."""
    if config.measures():
        erased = [Subject(each.name, each.kind) for each in config.concept_list()]
        kept = [each for part in kept_subjects(config.kept).values() for each in part]
        subjects = {each.name: each.kind for each in [*kept, *erased]}
        yield from config.judge.problems(subjects, [each.name for each in erased])


def _missing_wandb(config: RunConfig) -> Iterator[str]:
    tracking = config.tracking
    if isinstance(tracking, WandbTracking) and tracking.mode in _NEED_WANDB and not _has("wandb"):
        yield (
            f"tracking.mode = {tracking.mode.name} needs wandb, which is not installed: "
            "pip install wandb, or tracking=none"
        )


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
