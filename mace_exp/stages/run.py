"""What the stages of one run share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mace_exp.concepts.concept import Kind
from mace_exp.config.run_config import RunConfig, Stage
from mace_exp.data.images import TrainingImages
from mace_exp.data.schema import GeneratedImages
from mace_exp.methods.closed_form import weighted_sum
from mace_exp.methods.mace.lora import Lora
from mace_exp.methods.mace.training import PriorImages
from mace_exp.models.devices import choose_device
from mace_exp.models.fingerprints import fingerprint, text_fingerprint
from mace_exp.models.latents import native_size
from mace_exp.models.loading import loaded
from mace_exp.models.projections import projection_weights
from mace_exp.models.sampling import SamplingSettings, has_safety_checker
from mace_exp.models.schema import Precision
from mace_exp.models.text import PromptEncoder, stable_diffusion_encoder
from mace_exp.preservation.statistics import PreservationStatistics
from mace_exp.runs.cache import Cache
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.ranks import Ranks
from mace_exp.runs.record import Picture, Tracker
from mace_exp.runs.schema import WandbTracking
from mace_exp.stages import (
    erase,
    look,
    loras,
    observe,
    own,
    refinement,
    sentences,
    training_data,
)
from mace_exp.stages.snapshots import Snapshots


class Run:
    """What the stages of one run share: settings, the loaded model, and the results so far.

    A result that no stage of this run has made is read from the cache; one that is not there is an
    error that says which stage makes it. On a worker of several ranks no stage makes any: it reads
    what the first has made, and makes what is in its shares.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, tracker: Tracker, ranks: Ranks | None = None
    ) -> None:
        self.config, self.folder, self.tracker = config, folder, tracker
        self.ranks = ranks or Ranks()
        self.concepts = config.concept_list()
        self.settings = {each.slug: config.settings(each.name) for each in self.concepts}
        self.cache = Cache(Path(config.cache_dir))
        self.mask_fallbacks = 0
        self.prompt_fallbacks = 0
        self.snapshots: dict[str, Snapshots] = {}  # by concept; they come with the LoRAs
        self.metrics: dict[str, Any] = {}

    def does(self, stage: Stage) -> bool:
        """Whether this run may make the results of a stage, or only read them."""
        return self.ranks.number == 0 and stage in self.config.stages

    @cached_property
    def pipeline(self) -> Any:
        """The model before the edit; every stage leaves it as it was."""
        return loaded(self.config.model, self.config.device.name)

    @cached_property
    def fingerprint(self) -> str:
        """Tells the model apart in every cache key."""
        return fingerprint(self.pipeline)

    @property
    def precision(self) -> dict[str, str]:
        """What the model computes in, unless that is float32: part of the key of all that it makes.

        A fingerprint is that of the numbers in float16, whatever they are computed with.
        """
        dtype = self.config.model.dtype
        return {} if dtype is Precision.float32 else {"dtype": dtype.name}

    @property
    def computed_by(self) -> dict[str, str]:
        """What decides what the model makes of an input: part of the key of pictures and
        latents."""
        return {"model": self.fingerprint} | self.precision

    def drawn_by(self, *, checked: bool = True) -> dict[str, str]:
        """What decides the pictures that the model draws; `checked` as in `sampling`."""
        blackens = checked and has_safety_checker(self.pipeline)
        return self.computed_by | ({"safety_checker": "kept"} if blackens else {})

    @property
    def trains_on_checked(self) -> bool:
        """Whether a safety checker may blacken training images: not where a run erases explicit
        content, which it has to see."""
        return all(concept.kind is not Kind.explicit for concept in self.concepts)

    @property
    def safety_checker(self) -> str:
        """What the model's safety checker did in this run."""
        if not has_safety_checker(self.pipeline):
            return "none"
        if self.trains_on_checked or not isinstance(self.config.images, GeneratedImages):
            return "kept"
        return "kept, but off while training images were drawn: they show explicit content"

    @cached_property
    def text_fingerprint(self) -> str:
        """Tells the text encoder apart: the key of what depends on prompts alone."""
        return text_fingerprint(self.pipeline)

    @cached_property
    def encoder(self) -> PromptEncoder:
        """The text side of the model."""
        return stable_diffusion_encoder(self.pipeline)

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The projections that are edited, by parameter name, as they are before the edit.

        All that read text, whichever of them the LoRAs reach: refinement maps keys and values.
        """
        return projection_weights(self.pipeline.unet)

    @cached_property
    def sampling(self) -> SamplingSettings:
        """How every picture of this run is drawn, the model's own size spelled out: keys hold it,
        and no weight tells it."""
        sampling = self.config.sampling
        height, width = native_size(self.pipeline)
        return SamplingSettings(
            steps=sampling.steps,
            guidance=sampling.guidance,
            scheduler=sampling.scheduler.name,
            batch_size=sampling.batch_size,
            height=sampling.height or height,
            width=sampling.width or width,
        )

    @cached_property
    def training_prompts(self) -> dict[str, list[str]]:
        """Training sentences by slug: the one source of them for every stage."""
        return sentences.sentences(self)

    @cached_property
    def training_images(self) -> dict[str, TrainingImages]:
        """Training images by slug."""
        return look.images(self)

    @cached_property
    def training_masks(self) -> dict[str, torch.Tensor | None]:
        """Masks [n, H, W], bool, by slug; None for the whole image."""
        return look.masks(self)

    @cached_property
    def prior_images(self) -> TrainingImages | None:
        """Class images whose denoising the LoRAs must keep; None where none are given."""
        return own.prior_images(self)

    @cached_property
    def encoded_prior(self) -> PriorImages | None:
        """The class images as every LoRA of the run trains on them."""
        return training_data.encoded_prior(self)

    @cached_property
    def statistics(self) -> dict[str, PreservationStatistics]:
        """Preservation statistics: "prior" and "domain", those of the two that a weight asks
        for."""
        return erase.preservation(self)

    @cached_property
    def transform(self) -> torch.Tensor:
        """T of the refinement, [d, d], float64."""
        return refinement.refinement(self)

    @cached_property
    def loras(self) -> dict[str, Lora]:
        """One LoRA a concept, by slug."""
        return loras.loras(self)

    @cached_property
    def edit(self) -> dict[str, torch.Tensor]:
        """The fused weights, by parameter name."""
        return erase.fusion(self)

    @cached_property
    def drawn(self) -> observe.SuiteSamples | None:
        """Pictures before and after; None where the evaluation is off."""
        return observe.samples(self)

    def preserved(self, *, prior_weight: float, domain_weight: float) -> torch.Tensor | None:
        """`prior_weight P + domain_weight D`, [d, d], weights in their units; None where nothing is
        to be preserved."""
        means = {name: sums.mean for name, sums in self.statistics.items()}
        prior, domain = self.config.preservation.prior, self.config.preservation.domain
        return weighted_sum(
            (prior_weight * prior.unit, means.get("prior")),
            (domain_weight * domain.unit, means.get("domain")),
        )

    def show(self, name: str, pictures: Sequence[Picture]) -> None:
        """Send pictures to the dashboard where the settings ask for it."""
        tracking = self.config.tracking
        if isinstance(tracking, WandbTracking) and tracking.log_images:
            self.tracker.images(name, pictures)

    def summary(self) -> dict[str, Any]:
        """What was erased from which model, what was reused, how many masks and prompts failed, and
        what the safety checker did."""
        return {
            "model": self.config.model.name,
            "fingerprint": self.fingerprint,
            "device": str(choose_device(self.config.device.name)),
            "concepts": [
                {"name": c.name, "kind": c.kind.name, "anchor": c.anchor} for c in self.concepts
            ],
            "reused": self.cache.reused,
            "made": self.cache.made,
            "mask_fallbacks": self.mask_fallbacks,
            "prompt_fallbacks": self.prompt_fallbacks,
            "safety_checker": self.safety_checker,
        }
