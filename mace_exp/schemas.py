"""The schemas of the groups in conf/: types, units and ranges. No values: those live in conf/.

`Annotated[int, Range(...)]` carries the range beside the type; `ranges.out_of_range` reads it.
Enums have lower-case members because configuration files name members.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.concepts import Kind
from mace_exp.ranges import NONNEGATIVE, POSITIVE, PROPORTION, WHOLE, Range


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class JudgeName(Enum):
    mini = "mini"
    none = "none"


class SchedulerName(Enum):
    dpm = "dpm"  # DPM-Solver++ 2M
    ddim = "ddim"
    euler = "euler"
    pndm = "pndm"


class LoraInit(Enum):
    """How A starts; B starts at zero."""

    gaussian = "gaussian"  # N(0, 1 / rank^2)
    kaiming = "kaiming"


class Part(Enum):
    """A part of the evaluation; the names are those in prompts.csv."""

    erased = "erased"
    preserved = "preserved"
    objects = "objects"
    styles = "styles"
    general = "general"  # nameless people and bare scenes: is the scene the caption's?


class Crop(Enum):
    """Which part of a picture of the user's own is trained on."""

    center = "center"  # the largest part of the right shape, in the middle
    random = "random"  # a part of the right shape, anywhere
    none = "none"  # all of it, squeezed into the shape


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Stage(Enum):
    """The stages of a run, in their order."""

    images = "images"
    masks = "masks"
    preservation = "preservation"
    cfr = "cfr"
    lora = "lora"
    fusion = "fusion"
    samples = "samples"
    metrics = "metrics"
    report = "report"


def _check_multiple(key: str, size: int | None) -> None:
    """Refuse a size in pixels that latents can't have."""
    if size is not None and size % 8:
        raise ValueError(
            f"{key} = {size} is no multiple of 8, the pixels of one latent: "
            f"take {max(8, size - size % 8)}, or null for the model's own size"
        )


@dataclass(kw_only=True)
class ModelConfig:
    """The model that is edited, and who can judge its pictures."""

    name: str
    source: str | None  # a diffusers folder, a checkpoint or a hub id; null: the embedded weights
    file_config: str | None  # the diffusers folder that describes a checkpoint file
    allow_download: bool  # a hub id that is not in the local cache is fetched
    variant: str | None  # "fp16" where the folder holds such files
    dtype: Precision  # of the model; closed forms are solved in float64, LoRAs trained in float32
    # Kept where the model has one, and off only while training images of explicit content are
    # drawn; false: not loaded, and not saved.
    safety_checker: bool
    judge: JudgeName


@dataclass(kw_only=True)
class ConceptsConfig:
    """What is erased."""

    names: list[str]
    kind: Kind
    kinds: dict[str, Kind]  # by name, where a concept is of another kind


@dataclass(kw_only=True)
class AnchorsConfig:
    """What takes a concept's place, by kind."""

    person: str
    object: str
    style: str
    explicit: str
    per_concept: dict[str, str]  # by name


@dataclass(kw_only=True)
class PromptsConfig:
    """Training prompts; a subclass says where they come from."""

    count: Annotated[int, WHOLE]  # a concept


@dataclass(kw_only=True)
class TemplatePrompts(PromptsConfig):
    """The project's own templates."""


@dataclass(kw_only=True)
class LlmPrompts(PromptsConfig):
    """Sentences of a language model, at an OpenAI-compatible endpoint or in a folder; templates
    where it falls short."""

    base_url: str | None  # of the endpoint, as in https://api.openai.com/v1
    model: str | None  # its name there
    key_env: str | None  # the environment variable that holds the key; null: none is wanted
    folder: str | None  # of a transformers text-generation model, in place of an endpoint
    seed: Annotated[int, NONNEGATIVE]  # of a model in a folder; another one asks an endpoint anew
    temperature: Annotated[float | None, NONNEGATIVE]  # null: the model's own
    timeout: Annotated[float, POSITIVE]  # seconds an answer may take
    attempts: Annotated[int, WHOLE]  # how often it is asked for one concept, at most

    def __post_init__(self) -> None:
        if (self.base_url is None) == (self.folder is None):
            raise ValueError(
                f"prompts.base_url = {self.base_url} and prompts.folder = {self.folder}: give one "
                "of them, an OpenAI-compatible endpoint or a folder with a transformers model"
            )
        if (self.base_url is None) != (self.model is None):
            raise ValueError(
                f"prompts.model = {self.model}: it names the model at prompts.base_url = "
                f"{self.base_url}; give both, or prompts.folder alone"
            )


@dataclass(kw_only=True)
class ImagesConfig:
    """Training images; a subclass says where they come from."""


@dataclass(kw_only=True)
class GeneratedImages(ImagesConfig):
    """Drawn by the model itself before it is edited."""

    per_concept: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]


@dataclass(kw_only=True)
class FolderImages(ImagesConfig):
    """The user's own: `<path>/<concept>/` holds the images of a concept."""

    path: str
    per_concept: Annotated[int | None, WHOLE]  # the first so many; null: all
    size: Annotated[int | None, Range(low=8)]  # pixels a side; null: as pictures are drawn
    crop: Crop
    crop_share: Annotated[float, Range(above=0, high=1)]  # least side of a random crop
    flip: bool  # mirror every other image, by a coin
    seed: Annotated[int, NONNEGATIVE]  # of crops and flips

    def __post_init__(self) -> None:
        _check_multiple("images.size", self.size)


@dataclass(kw_only=True)
class PriorImagesConfig:
    """Class images whose denoising LoRA training must keep; a subclass says where they are."""


@dataclass(kw_only=True)
class NoPriorImages(PriorImagesConfig):
    """None: LoRAs are trained on the attention alone."""


@dataclass(kw_only=True)
class GivenPriorImages(PriorImagesConfig):
    """Images with what they show; one is drawn for each image of a concept."""

    weight: Annotated[float, POSITIVE]  # of their denoising error beside the attention loss


@dataclass(kw_only=True)
class FolderPriorImages(GivenPriorImages):
    """All images of a folder, under one prompt."""

    path: str
    prompt: str


@dataclass(kw_only=True)
class ListedPriorImages(GivenPriorImages):
    """Two text files: a path a line, relative to the list, and a prompt a line."""

    images: str
    prompts: str


@dataclass(kw_only=True)
class MasksConfig:
    """Where in a training image its concept is; a subclass says how that is known."""


@dataclass(kw_only=True)
class NoMasks(MasksConfig):
    """No mask term: the concept is everywhere, and there is nothing to keep or to look at."""


@dataclass(kw_only=True)
class WholeMasks(MasksConfig):
    """Masks of ones: the loss of no masks, with masks in the data and among the overlays."""


@dataclass(kw_only=True)
class AttentionMasks(MasksConfig):
    """The model's own cross-attention to the concept's tokens."""

    threshold: Annotated[float | None, PROPORTION]  # of a map's range; null: Otsu's cut of each


@dataclass(kw_only=True)
class PrecomputedMasks(MasksConfig):
    """Mask files made elsewhere: `<path>/<slug>/<index>.png`, or as the user's images are named."""

    path: str | None  # null: beside the user's own images


@dataclass(kw_only=True)
class GroundedSamMasks(MasksConfig):
    """What Grounding DINO finds by words, cut out by SAM."""

    detector: str  # Grounding DINO, a transformers folder or a hub id
    segmenter: str  # SAM, a transformers folder or a hub id
    allow_download: bool  # a hub id that is not in the local cache is fetched
    people: list[str]  # what to look for where a concept is a person; elsewhere its own words
    box_threshold: Annotated[float, PROPORTION]  # of the detector's score
    mask_threshold: Annotated[float, Range()]  # of the segmenter's logit

    def __post_init__(self) -> None:
        if not any(word.strip(" .") for word in self.people):
            raise ValueError(
                f"masks.people = {self.people} names nothing to look for: "
                "give words, as in masks.people=[person,face]"
            )


@dataclass(kw_only=True)
class KeptConfig:
    """What must survive, by name: preservation and evaluation read it."""

    people: list[str]
    artists: list[str]
    objects: list[str]
    styles: list[str]


@dataclass(kw_only=True)
class PriorConfig:
    """Captions of things in general (kept objects and styles, nameless people, scenes)."""

    unit: Annotated[int, WHOLE]  # prompts that a weight of 1 stands for, see PreservationConfig
    count: Annotated[int, NONNEGATIVE]  # captions out of the templates
    captions: list[str]  # further ones
    file: str | None  # further ones: a text file, one a line, or COCO's caption JSON
    cache: str | None  # the sum of captions made before, in place of all these


@dataclass(kw_only=True)
class DomainConfig:
    """Captions of the concepts' neighbours: the kept people's and artists' names."""

    unit: Annotated[int, WHOLE]  # as for the prior
    count: Annotated[int, NONNEGATIVE]  # captions, names x templates
    cache: str | None  # the sum of captions made before, in their place


@dataclass(kw_only=True)
class PreservationConfig:
    """What the closed forms hold fixed.

    A weight counts in units of so many prompts: with 1 it says how many prompts' worth the captions
    weigh, with N it acts like a weight of the raw sum over N prompts, as published weights do.
    """

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    prior: PriorConfig
    domain: DomainConfig


@dataclass(kw_only=True)
class CfrConfig:
    """Stage 1, closed-form refinement."""

    closeness: Annotated[float, NONNEGATIVE]
    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    all_words: bool


LORA_TARGETS = ("to_k", "to_v", "to_q", "to_out")
IMAGE_TARGETS = ("to_q", "to_out")
"""Projections that read the image: no closed form fuses them, see `erasure.fusion`."""


@dataclass(kw_only=True)
class LoraConfig:
    """Stage 2, one LoRA a concept."""

    rank: Annotated[int, WHOLE]
    alpha: Annotated[float, POSITIVE]
    init: LoraInit
    dropout: Annotated[float, Range(low=0, below=1)]
    targets: list[str]
    learning_rate: Annotated[float, POSITIVE]
    steps: Annotated[int, WHOLE]
    batch_size: Annotated[int, WHOLE]  # images a step and concept
    concepts_per_batch: Annotated[int, WHOLE]  # side by side in one step: speed and memory alone
    weight_decay: Annotated[float, NONNEGATIVE]
    max_grad_norm: Annotated[float, POSITIVE]
    gradient_checkpointing: bool  # less memory, about a third more time
    end_of_text: bool  # the end-of-text token and the padding count as the concept's
    per_concept: bool  # false: one LoRA for all
    importance_sampling: bool  # false: timesteps uniform
    k: Annotated[float, POSITIVE]  # steepness, 1 / timestep
    t1: Annotated[float, Range(low=0, high=1000)]  # timesteps
    t2: Annotated[float, Range(low=0, high=1000)]  # timesteps

    def __post_init__(self) -> None:
        strangers = [target for target in self.targets if target not in LORA_TARGETS]
        if strangers or not self.targets:
            raise ValueError(
                f"lora.targets = {self.targets} names {strangers[0] if strangers else 'nothing'}: "
                f"it takes some of {', '.join(LORA_TARGETS)}, as in lora.targets=[to_k,to_v]"
            )
        if self.gradient_checkpointing and self.dropout:
            raise ValueError(
                f"lora.gradient_checkpointing = true with lora.dropout = {self.dropout:g}: the "
                "second forward would drop other features than the first; set one of them off"
            )
        if self.t1 >= self.t2:
            raise ValueError(
                f"lora.t1 = {self.t1:g} is not below lora.t2 = {self.t2:g}: importance sampling "
                "draws the timesteps between them; lower lora.t1 or raise lora.t2"
            )


NEEDS_FUSION = (Stage.fusion, Stage.samples, Stage.metrics)
"""Stages that make or use the fused weights."""


@dataclass(kw_only=True)
class FusionConfig:
    """Stage 3, one weight for all concepts."""

    closeness: Annotated[float, NONNEGATIVE]
    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]


@dataclass(kw_only=True)
class SamplingConfig:
    """How pictures are drawn."""

    steps: Annotated[int, WHOLE]
    guidance: Annotated[float, NONNEGATIVE]
    scheduler: SchedulerName
    batch_size: Annotated[int, WHOLE]
    height: Annotated[int | None, Range(low=8)]  # pixels; null: the model's own
    width: Annotated[int | None, Range(low=8)]

    def __post_init__(self) -> None:
        _check_multiple("sampling.height", self.height)
        _check_multiple("sampling.width", self.width)


@dataclass(kw_only=True)
class EvaluationConfig:
    """What is measured; a subclass says how."""


@dataclass(kw_only=True)
class NoEvaluation(EvaluationConfig):
    """Nothing is drawn and nothing measured."""


@dataclass(kw_only=True)
class SampledEvaluation(EvaluationConfig):
    """Pictures before and after, on templates that training never saw."""

    parts: list[Part]
    images_per_part: Annotated[int, WHOLE]
    templates: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]
    attention_maps: Annotated[int, NONNEGATIVE]  # concepts whose attention is drawn


@dataclass(kw_only=True)
class TrackingConfig:
    """Where the run is shown beside its own folder."""


@dataclass(kw_only=True)
class NoTracking(TrackingConfig):
    """The run folder alone."""


@dataclass(kw_only=True)
class WandbTracking(TrackingConfig):
    """Weights & Biases; auto: online where a key is set, offline elsewhere."""

    mode: WandbMode
    project: str
    entity: str | None
    group: str | None  # null: the sweep's folder in a sweep, none elsewhere
    log_images: bool
    log_weights: bool  # the edited weights go with the run, as an artifact


@dataclass(kw_only=True)
class SaveConfig:
    """What leaves a run beside the edited weights."""

    pipeline: bool
