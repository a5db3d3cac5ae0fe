"""Configuration of tracking, and of what a run saves."""

from dataclasses import dataclass
from enum import Enum


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True)
class TrackingConfig:
    """A tracking service, in addition to the run folder."""


@dataclass(kw_only=True)
class NoTracking(TrackingConfig):
    """Only the run folder."""


@dataclass(kw_only=True)
class WandbTracking(TrackingConfig):
    """Weights & Biases; auto: online if wandb finds an API key, otherwise offline."""

    mode: WandbMode
    project: str
    entity: str | None
    group: str | None  # null: the sweep's folder in a sweep, otherwise none
    log_images: bool
    log_weights: bool  # upload the edited weights as an artifact


@dataclass(kw_only=True)
class SaveConfig:
    """What a run saves in addition to the edited weights."""

    pipeline: bool  # the erased model as a diffusers folder
