"""Configuration of the model and of sampling."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, WHOLE, Range, check_pixels


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"  # Apple's GPUs


class Precision(Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Offload(Enum):
    none = "none"  # all parts stay on the device
    model = "model"  # text encoders, UNet and autoencoder take turns there, and wait on the CPU


@dataclass(kw_only=True)
class ModelConfig:
    """The model to edit."""

    name: str
    source: str | None  # a diffusers folder, a checkpoint or a hub id; null: the embedded weights
    file_config: str | None  # the diffusers folder that describes a checkpoint file
    allow_download: bool  # download a hub id that is not in the local cache
    variant: str | None  # as in "fp16", if the folder has such files
    dtype: Precision  # of the model; closed forms are solved in float64, LoRAs trained in float32
    # true: used if the model has one, except while training images of explicit content are sampled;
    # false: neither loaded nor saved.
    safety_checker: bool
    offload: Offload  # for a GPU that can't hold the whole model


class SchedulerName(Enum):
    dpm = "dpm"  # DPM-Solver++ 2M
    ddim = "ddim"
    euler = "euler"
    pndm = "pndm"


SIDE = Range(low=8, high=8192)
"""Pixels of a side: above, one latent would take the memory of a model."""


@dataclass(kw_only=True)
class SamplingConfig:
    """Sampling settings."""

    steps: Annotated[int, WHOLE]
    guidance: Annotated[float, NONNEGATIVE]
    scheduler: SchedulerName
    batch_size: Annotated[int, WHOLE]
    height: Annotated[int | None, SIDE]  # pixels; null: the model's native size
    width: Annotated[int | None, SIDE]

    def __post_init__(self) -> None:
        check_pixels("sampling.height", self.height)
        check_pixels("sampling.width", self.width)
