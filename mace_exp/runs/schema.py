"""Configuration of tracking, and of what a run saves."""

from dataclasses import dataclass
from enum import Enum

from mace_exp.runs.tracking import TrackerOptions

_NOT_IN_PROJECTS = "/\\#?%:"
_LONGEST_PROJECT = 128


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True)
class TrackingConfig:
    """A tracking service, in addition to the run folder."""

    def options(self) -> TrackerOptions:
        """Return the options of the tracker; the run adds name and tags."""
        return TrackerOptions(mode="disabled")

    def shows_images(self) -> bool:
        """Return whether pictures go to the dashboard."""
        return False

    def logs_weights(self) -> bool:
        """Return whether the edited weights are uploaded as an artifact."""
        return False


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

    def __post_init__(self) -> None:
        wrong = next((each for each in self.project if each in _NOT_IN_PROJECTS), None)
        if wrong is not None or len(self.project) > _LONGEST_PROJECT:
            found = f"holds {wrong!r}" if wrong else f"has {len(self.project)} characters"
            raise ValueError(
                f"tracking.project = {self.project} {found}: wandb takes at most "
                f"{_LONGEST_PROJECT} characters, and none of {' '.join(_NOT_IN_PROJECTS)}; a team "
                "or user is tracking.entity"
            )

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
    """What a run saves in addition to the edited weights."""

    pipeline: bool  # the erased model as a diffusers folder
