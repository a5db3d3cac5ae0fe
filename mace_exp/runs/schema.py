"""Where a run is shown, and what it leaves."""

from dataclasses import dataclass
from enum import Enum


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True)
class TrackingConfig:
    """Where the run is shown beside its own folder."""


@dataclass(kw_only=True)
class NoTracking(TrackingConfig):
    """The run folder alone."""


@dataclass(kw_only=True)
class WandbTracking(TrackingConfig):
    """Weights & Biases; auto: online where wandb finds a key, offline elsewhere."""

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
