"""Where a run is shown, and what it leaves."""

from dataclasses import dataclass
from enum import Enum

from mace_exp.runs.tracking import TrackerOptions


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True)
class TrackingConfig:
    """Where the run is shown beside its own folder."""

    def options(self) -> TrackerOptions:
        """Return how the tracker is opened; name and tags are the run's."""
        return TrackerOptions(mode="disabled")

    def shows_images(self) -> bool:
        """Return whether pictures go to the dashboard."""
        return False

    def logs_weights(self) -> bool:
        """Return whether the edited weights go with the run, as an artifact."""
        return False


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

    def options(self) -> TrackerOptions:
        return TrackerOptions(
            mode=self.mode.name, project=self.project, entity=self.entity, group=self.group
        )

    def shows_images(self) -> bool:
        return self.log_images

    def logs_weights(self) -> bool:
        return self.log_weights


@dataclass(kw_only=True)
class SaveConfig:
    """What leaves a run beside the edited weights."""

    pipeline: bool
