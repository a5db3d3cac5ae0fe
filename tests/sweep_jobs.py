"""Stands in for the pipeline where commands are swept: what fails, and what is in memory."""

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mace_exp.config.run_config import RunConfig
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import recorded_status

Command = Callable[..., object]
HERE = "hydra.sweep.dir=swept"


class Model:
    """Stands in for what a job holds in memory; like a real one, it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@dataclass
class Jobs:
    """Stands in for `mace_exp.pipeline`: fails at the ranks in `breaks`, and watches the memory."""

    breaks: dict[int, Callable[[], BaseException]] = field(default_factory=dict)
    runs: list[tuple[RunConfig, Path]] = field(default_factory=list)
    models: list[weakref.ref[Model]] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    def run(self, config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> None:
        self.alive.append(sum(model() is not None for model in self.models))
        self.runs.append((config, run_dir))
        RunFolder(run_dir).config.write_text(yaml.safe_dump(composed))
        with recorded_status(RunFolder(run_dir)) as status:
            status.update(stage="lora")
            self.before()
            self._work(config.lora.rank)

    def _work(self, rank: int) -> None:
        model = Model()
        self.models.append(weakref.ref(model))
        if rank in self.breaks:
            try:
                raise KeyError(model)  # an error can hold on to the model by itself, too
            except KeyError as cause:
                raise self.breaks[rank]() from cause

    @property
    def ranks(self) -> list[int]:
        return [config.lora.rank for config, _ in self.runs]


def broken() -> BaseException:
    return RuntimeError("it breaks")


def status(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())
