"""Files, folders and models that a configuration names: are they there, and do they fit?"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mace_exp.concepts.llm.endpoint import endpoint_problems
from mace_exp.concepts.prompt_files import template_problems
from mace_exp.concepts.schema import LlmPrompts
from mace_exp.config.run_config import RunConfig, Stage
from mace_exp.data.files import Size
from mace_exp.data.schema import GroundedSamMasks, PrecomputedMasks
from mace_exp.data.sources import missing_images, missing_prior_images
from mace_exp.evaluation.schema import SampledEvaluation
from mace_exp.models.auxiliary import check_auxiliary
from mace_exp.models.sources import find_model, native_size
from mace_exp.runs.schema import WandbMode, WandbTracking

_NEED_WANDB = (WandbMode.online, WandbMode.offline)


def missing_files(config: RunConfig) -> Iterator[str]:
    """Yield a message for each file or folder that is named and not there, or does not fit."""
    model = config.model
    if model.source is not None:
        try:
            find_model(
                model.source, file_config=model.file_config, allow_download=model.allow_download
            )
        except ValueError as error:
            yield f"model.source = {model.source}: {error}"
    yield from dict.fromkeys(_of_concepts(config))
    yield from missing_prior_images(config.prior_images)
    yield from _missing_helpers(config)
    yield from _misjudged_size(config)
    prior, domain = config.preservation.prior, config.preservation.domain
    if prior.file is not None and not Path(prior.file).is_file():
        yield f"preservation.prior.file = {prior.file} is no file: name text, a caption a line"
    for key, cache in (("prior", prior.cache), ("domain", domain.cache)):
        if cache is not None and not Path(cache).is_file():
            yield (
                f"preservation.{key}.cache = {cache} is no file: name one that `python -m "
                "mace_exp.preservation` wrote"
            )


def _of_concepts(config: RunConfig) -> Iterator[str]:
    """Yield a message for each concept whose images, masks or templates are not there; it begins
    with the key that names them."""
    size = _drawn_size(config) if isinstance(config.masks, PrecomputedMasks) else None
    for concept in config.concept_list():
        own, given = config.settings(concept.name), config.overrides.get(concept.name, {})
        images = missing_images([concept], own.images, own.masks, drawn=size)
        templates = template_problems(concept, own.prompts, config.evaluation)
        for message in (*images, *templates):
            key = message.split(" ")[0]
            yield f"overrides.{concept.name}.{message}" if key in given else message


def _drawn_size(config: RunConfig) -> Size | None:
    """Return the (height, width) of the pictures that the model draws, where that is known."""
    model, sampling = config.model, config.sampling
    if sampling.height is not None and sampling.width is not None:
        return sampling.height, sampling.width
    try:
        location = find_model(
            model.source, file_config=model.file_config, allow_download=model.allow_download
        )
    except ValueError:  # a model that is not there is said beside this
        return None
    native = native_size(location)
    return native and (sampling.height or native[0], sampling.width or native[1])


def _misjudged_size(config: RunConfig) -> Iterator[str]:
    """Yield a message where the model's native size is not the one that the judge reads."""
    side = config.judge.side
    measured = Stage.metrics in config.stages and isinstance(config.evaluation, SampledEvaluation)
    if side is None or not measured:
        return
    size = _drawn_size(config)
    if size not in (None, (side, side)):
        source = config.model.source
        yield (
            f"judge = {config.judge.name} reads pictures of {side} x {side} alone, and "
            f"model.source = {source} draws {size[1]} x {size[0]}: give judge=none, or "
            f"sampling.height={side} sampling.width={side}"
        )


def _missing_helpers(config: RunConfig) -> Iterator[str]:
    """Yield a message for each package and each model beside the edited one that is named and not
    there."""
    prompts, masks, tracking = config.prompts, config.masks, config.tracking
    if isinstance(tracking, WandbTracking) and tracking.mode in _NEED_WANDB and not _has("wandb"):
        yield (
            f"tracking.mode = {tracking.mode.name} needs wandb, which is not installed: "
            "pip install wandb, or tracking=none"
        )
    if isinstance(prompts, LlmPrompts) and prompts.base_url is not None:
        yield from endpoint_problems(prompts.base_url, prompts.key_env)
    wanted: list[tuple[str, str, dict[str, Any]]] = []
    if isinstance(prompts, LlmPrompts) and prompts.folder is not None:
        wanted.append(("prompts.folder", prompts.folder, {"hub": False}))
    if isinstance(masks, GroundedSamMasks):
        fetched = {"allow_download": masks.allow_download}
        detector = {"model_type": "grounding-dino"} | fetched
        wanted.append(("masks.detector", masks.detector, detector))
        wanted.append(("masks.segmenter", masks.segmenter, {"model_type": "sam"} | fetched))
    for key, source, options in wanted:
        try:
            check_auxiliary(source, **options)
        except ValueError as error:
            yield f"{key} = {source} {error}"


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
