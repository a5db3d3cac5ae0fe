"""The model that is edited, and how it draws."""

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


class JudgeName(Enum):
    mini = "mini"
    none = "none"


JUDGED_SIDES = {JudgeName.mini: 96}
"""Height and width of the only pictures that a judge reads, in pixels."""


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
    offload: Offload  # for a GPU that can't hold the whole model
    judge: JudgeName


class SchedulerName(Enum):
    dpm = "dpm"  # DPM-Solver++ 2M
    ddim = "ddim"
    euler = "euler"
    pndm = "pndm"


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
        check_pixels("sampling.height", self.height)
        check_pixels("sampling.width", self.width)
