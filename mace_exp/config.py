"""The run configuration, and the one crossing from Hydra's DictConfig to dataclasses.

Nothing here imports torch: a run that is refused is refused in about a second.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mace_exp.concepts import Concept, Kind, build_concepts
from mace_exp.helper_source import check_helper
from mace_exp.image_sources import missing_images, missing_prior_images
from mace_exp.llm.endpoint import endpoint_problems
from mace_exp.model_source import find_model
from mace_exp.prompts import EVALUATION_TEMPLATES, TRAINING_TEMPLATES
from mace_exp.ranges import NONNEGATIVE, out_of_range, suggestion, unknown_key
from mace_exp.schemas.concepts import (
    AnchorsConfig,
    ConceptsConfig,
    KeptConfig,
    LlmPrompts,
    PromptsConfig,
    TemplatePrompts,
)
from mace_exp.schemas.data import (
    AttentionMasks,
    FolderImages,
    FolderPriorImages,
    GeneratedImages,
    GroundedSamMasks,
    ImagesConfig,
    ListedPriorImages,
    MasksConfig,
    NoMasks,
    NoPriorImages,
    PrecomputedMasks,
    PriorImagesConfig,
    WholeMasks,
)
from mace_exp.schemas.method import (
    IMAGE_TARGETS,
    CfrConfig,
    FusionConfig,
    LoraConfig,
    PreservationConfig,
)
from mace_exp.schemas.model import Device, ModelConfig, SamplingConfig
from mace_exp.schemas.results import (
    EvaluationConfig,
    NoEvaluation,
    NoTracking,
    SampledEvaluation,
    SaveConfig,
    TrackingConfig,
    WandbTracking,
)
from mace_exp.schemas.run import NEEDS_FUSION, Stage

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
"""The configuration files: inside the package in a wheel, beside it in the repository."""


@dataclass(kw_only=True)
class RunConfig:
    """The whole configuration of one run; every group in conf/ is a field here."""

    model: ModelConfig
    concepts: ConceptsConfig
    anchors: AnchorsConfig
    prompts: PromptsConfig
    images: ImagesConfig
    masks: MasksConfig
    prior_images: PriorImagesConfig
    kept: KeptConfig
    preservation: PreservationConfig
    cfr: CfrConfig
    lora: LoraConfig
    fusion: FusionConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    save: SaveConfig
    stages: list[Stage]
    seed: Annotated[int, NONNEGATIVE]
    device: Device
    cache_dir: str
    resume: str | None

    def __post_init__(self) -> None:
        self.concept_list()
        self._check_kinds()
        self._check_weights()
        self._check_templates()
        self._check_targets()
        if not self.stages or len(set(self.stages)) != len(self.stages):
            names = [stage.name for stage in self.stages]
            raise ValueError(
                f"stages = {names} must name at least one stage, and each once, "
                f"out of {', '.join(stage.name for stage in Stage)}"
            )

    def concept_list(self) -> list[Concept]:
        """Return the concepts to erase, each with its own kind and anchor."""
        return build_concepts(
            self.concepts.names,
            self.concepts.kind,
            kinds=self.concepts.kinds,
            anchors={kind: getattr(self.anchors, kind.name) for kind in Kind},
            anchor_per_concept=self.anchors.per_concept,
        )

    def _check_kinds(self) -> None:
        """Refuse `concepts=[cat]` as a person: it would train on `a photo of cat`."""
        known = {name.lower(): Kind.OBJECT for name in self.kept.objects}
        known |= {name.lower(): Kind.STYLE for name in self.kept.styles}
        for concept in self.concept_list():
            kind = known.get(concept.name.lower(), concept.kind)
            if kind is not concept.kind:
                raise ValueError(
                    f"concepts.kind = {concept.kind.name} for {concept.name!r}, which "
                    f"kept.{kind.name}s lists: give concepts.kind={kind.name}, or for this one "
                    f"alone concepts.kinds='{{{concept.name}: {kind.name}}}'"
                )

    def _check_weights(self) -> None:
        """Refuse a weight on captions that there are none of."""
        prior, domain = self.preservation.prior, self.preservation.domain
        has_prior = bool(prior.count or prior.captions or prior.file or prior.cache)
        has_domain = bool(domain.cache or domain.count and (self.kept.people or self.kept.artists))
        if prior.cache and (prior.captions or prior.file):
            raise ValueError(
                f"preservation.prior.cache = {prior.cache} takes the place of all captions: give no"
                " preservation.prior.captions and no preservation.prior.file beside it"
            )
        for key, config in (("cfr", self.cfr), ("fusion", self.fusion)):
            if config.prior_weight and not has_prior:
                raise ValueError(
                    f"{key}.prior_weight = {config.prior_weight:g} weighs no captions: give "
                    f"preservation.prior.count, .captions, .file or .cache, or {key}.prior_weight=0"
                )
            if config.domain_weight and not has_domain:
                raise ValueError(
                    f"{key}.domain_weight = {config.domain_weight:g} weighs no captions: give "
                    f"preservation.domain.count and kept.people or kept.artists, or .cache, or "
                    f"{key}.domain_weight=0"
                )

    def _check_targets(self) -> None:
        """Refuse to fuse what no closed form can: LoRAs of projections that read the image."""
        reading = [target for target in self.lora.targets if target in IMAGE_TARGETS]
        fusing = [each.name for each in self.stages if each in NEEDS_FUSION]
        if reading and fusing:
            raise ValueError(
                f"lora.targets names {reading[0]}, which reads the image and not the text: fusion "
                f"can't merge it, and stages has {', '.join(fusing)}. Train to_k and to_v, or end "
                "with the LoRAs: stages=[images,masks,preservation,cfr,lora]"
            )

    def _check_templates(self) -> None:
        """Refuse more prompts than there are templates."""
        wanted = [("prompts.count", self.prompts.count, len(TRAINING_TEMPLATES))]
        if isinstance(self.evaluation, SampledEvaluation):
            templates = self.evaluation.templates
            wanted.append(("evaluation.templates", templates, len(EVALUATION_TEMPLATES)))
        for key, count, most in wanted:
            if count > most:
                raise ValueError(f"{key} = {count} is more than there are: at most {most}")


VARIANTS: dict[str, dict[str, type]] = {
    "prompts": {"llm": LlmPrompts, "templates": TemplatePrompts},
    "images": {"generated": GeneratedImages, "folder": FolderImages},
    "masks": {
        "attention": AttentionMasks,
        "grounded_sam": GroundedSamMasks,
        "none": NoMasks,
        "precomputed": PrecomputedMasks,
        "whole": WholeMasks,
    },
    "prior_images": {
        "none": NoPriorImages,
        "folder": FolderPriorImages,
        "lists": ListedPriorImages,
    },
    "evaluation": {"sampled": SampledEvaluation, "none": NoEvaluation},
    "tracking": {"wandb": WandbTracking, "none": NoTracking},
}


def register() -> None:
    """Put the schemas where conf/ finds them: `run_schema` and `/schema/<group>/<variant>`."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for group, variants in VARIANTS.items():
        for name, schema in variants.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


def composed_run(*overrides: str, values: Mapping[str, object] | None = None) -> RunConfig:
    """Return the configuration that `python -m mace_exp <overrides>` would have.

    `values` by dotted key are set after it: names in them need no quoting.

    Raises:
        ValueError: as `to_run_config`, and for what Hydra refuses.
    """
    register()
    try:
        with _composition():
            composed = compose("config", overrides=list(overrides))
            for key, value in (values or {}).items():
                OmegaConf.update(composed, key, value, force_add=True)
            return to_run_config(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error


@contextmanager
def _composition() -> Iterator[None]:
    """Let `compose` read conf/, also inside an application that uses Hydra itself."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def model_named(model: str, *more: str) -> ModelConfig:
    """Return the settings of an option of conf/model, or of a folder, checkpoint file or hub id.

    `more` are further overrides, as in "model.allow_download=true". Raises ValueError as above.
    """
    if model in {file.stem for file in (CONF / "model").glob("*.yaml")} - {"path"}:
        return composed_run(f"model={model}", *more).model
    quoted = model.replace("\\", "\\\\").replace("'", "\\'")
    return composed_run("model=path", f"model.source='{quoted}'", *more).model


def to_run_config(composed: DictConfig) -> RunConfig:
    """Return the typed configuration; past this point no DictConfig exists.

    Raises:
        ValueError: an unknown key, a value that is not given, one out of its range, two that
            contradict each other, or a file that does not exist.
    """
    _refuse(_unknown_keys(composed))
    _refuse(f"{key} is not set: give {key}=..." for key in sorted(OmegaConf.missing_keys(composed)))
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RunConfig)
    _refuse(out_of_range(config))
    _refuse(_missing_files(config))
    return config


def _refuse(problems: Iterable[str]) -> None:
    text = "\n".join(problems)
    if text:
        raise ValueError(text)


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield a message for each key that no schema has; Hydra lets `+key` past its own check."""
    schema = OmegaConf.get_type(node)
    known = [field.name for field in fields(schema)] if is_dataclass(schema) else None
    for key in node:
        if known is not None and key not in known:
            yield unknown_key(f"{prefix}{key}", known)
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from _unknown_keys(node[key], f"{prefix}{key}.")


def _missing_files(config: RunConfig) -> Iterator[str]:
    """Yield a message for each file or folder that is named and not there."""
    model = config.model
    if model.source is not None:
        try:
            find_model(
                model.source, file_config=model.file_config, allow_download=model.allow_download
            )
        except ValueError as error:
            yield f"model.source = {model.source}: {error}"
    yield from missing_images(config.concept_list(), config.images, config.masks)
    yield from missing_prior_images(config.prior_images)
    yield from _missing_helpers(config)
    prior, domain = config.preservation.prior, config.preservation.domain
    if prior.file is not None and not Path(prior.file).is_file():
        yield f"preservation.prior.file = {prior.file} is no file: name text, a caption a line"
    for key, cache in (("prior", prior.cache), ("domain", domain.cache)):
        if cache is not None and not Path(cache).is_file():
            yield (
                f"preservation.{key}.cache = {cache} is no file: name one that `python -m "
                "mace_exp.preservation` wrote"
            )


def _missing_helpers(config: RunConfig) -> Iterator[str]:
    """Yield a message for each model beside the edited one that is named and not there."""
    prompts, masks = config.prompts, config.masks
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
            check_helper(source, **options)
        except ValueError as error:
            yield f"{key} = {source} {error}"


def explain(error: Exception) -> str:
    """Say in one message what Hydra, OmegaConf or this module refused, and what to do."""
    match error:
        case MissingConfigException(missing_cfg_file=str(wanted)):
            return _unknown_option(wanted, error.options or ())
        case OverrideParseException():
            return (
                f"{error.override}: this can't be read as key=value. Quote the whole argument for "
                "the shell, and inside it what holds quotes, commas or brackets: "
                """"concepts=['A, B',Amy Adams]\""""
            )
        case HydraException() | OmegaConfBaseException():
            return _composition_problem(error)
    return str(error)


def _unknown_option(wanted: str, options: Sequence[str]) -> str:
    group, _, option = wanted.rpartition("/")
    choice = f"{group}={option}" if group else option
    known = sorted(options) or sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    hint = suggestion(option, known, f"{group}=")
    own = " Names of your own go into brackets: concepts='[...]'." if group == "concepts" else ""
    return f"{choice}: there is no such option.{hint}{own} {group} takes {', '.join(known)}."


def _composition_problem(error: Exception) -> str:
    """Explain a key or a value that the schemas refused, and name the file that it stands in."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, OmegaConfBaseException):
        cause = error
    place = re.match(r"In '(.+?)': ", str(error))
    where = f"conf/{place[1]}.yaml: " if place and place[1] != "config" else ""
    if not isinstance(cause, OmegaConfBaseException):
        return where + _unknown_group(str(error).removeprefix(place[0] if place else ""))
    key, problem = cause.full_key or str(cause.key), (cause.msg or str(cause)).split("\n")[0]
    if re.match(r"Key '.*' (not in|is not in) ", problem) and is_dataclass(cause.object_type):
        known = [field.name for field in fields(cause.object_type)]
        if not known or cause.object_type in {MasksConfig, EvaluationConfig, TrackingConfig}:
            return (
                f"{where}{key}: this option names no schema; its file needs the line "
                f"defaults: [/schema/{key.split('.')[0]}/<variant>@_here_, _self_]"
            )
        return where + unknown_key(key, known)
    return f"{where}{key}: {_allowed(problem)}"


def _unknown_group(message: str) -> str:
    """Name the likely group where a file overrides one that there is not."""
    wrong = re.match(r"Could not override '([\w/]+)'\. No match", message)
    if not wrong:
        return message.strip()
    return unknown_key(wrong[1], [field.name for field in fields(RunConfig)])


def _allowed(problem: str) -> str:
    """Leave each choice of an enum once in OmegaConf's `expected one of [person, PERSON]`."""
    choices = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", problem)
    if not choices:
        return problem
    names = [name for name in choices[2].split(", ") if name.islower()]
    hint = suggestion(choices[1], names)
    return f"{choices[1]!r} is no choice.{hint} Choices: {', '.join(names)}."
