"""The training loop of every stage: resumable, seeded per step, with averaged weights.

The learning rate follows a trapezoid: warm-up, constant, linear decay to zero. A finished stage can
therefore be lengthened at the cost of its decay phase alone.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.mini_world.muon import Muon

log = logging.getLogger(__name__)

CHECKPOINTS = Path.home() / ".cache" / "mace_exp" / "mini"
"""Default folder of checkpoints, curves, renders and encoded pictures."""
Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length and hyperparameters of a stage.

    `warmup` is in steps, `fall` the share of the steps over which the learning rate decays to zero,
    `average` the decay of the averaged weights.
    """

    steps: int
    learning_rate: float
    """Of AdamW, for vectors and embeddings."""
    matrix_rate: float = 0.02
    """Of Muon, for matrices and convolutions: the spectral norm of one update."""
    warmup: int = 50
    fall: float = 0.4
    weight_decay: float = 0.01
    average: float = 0.998
    minutes_between_checkpoints: float = 3.0
    steps_between_probes: int = 500

    def factor(self, step: int) -> float:
        """Return the multiple of the learning rate at a step, in [0, 1]."""
        left = (self.steps - step) / max(1.0, self.fall * self.steps)
        return max(0.0, min(1.0, (step + 1) / self.warmup, left))


@dataclass(kw_only=True)
class Stage:
    """A model to train.

    `losses(step)` draws the batch from the step's seed and returns named losses, of which the first
    is minimised; `probe(averaged model)` returns figures for the curve.
    """

    name: str
    model: nn.Module
    losses: Callable[[int], Losses]
    probe: Callable[[nn.Module], dict[str, float]]
    schedule: Schedule


def train(stage: Stage, folder: Path, *, until_step: int | None = None) -> nn.Module:
    """Train a stage to its end, or to `until_step`, and return the averaged model.

    Resumes from the checkpoint in `folder`. Progress is logged twice a minute; probes are logged
    and appended to `<name>.csv` every `steps_between_probes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{stage.name}.pt"
    schedule = stage.schedule
    optimisers = _optimisers(stage.model, schedule)
    average = torch.optim.swa_utils.AveragedModel(
        stage.model, multi_avg_fn=_moving_average(schedule.average), use_buffers=True
    )
    clock = _Clock()
    step, clock.before = _load(checkpoint, stage.model, average, optimisers)
    end = schedule.steps if until_step is None else min(until_step, schedule.steps)
    while step < end:
        losses = _step(stage, optimisers, step)
        average.update_parameters(stage.model)
        step += 1
        clock.report(stage.name, step, schedule.steps, losses)
        if step % schedule.steps_between_probes == 0 or step == end:
            _probe(stage, average.module, step, clock, folder)
        if clock.checkpoint_due(schedule.minutes_between_checkpoints) or step == end:
            seconds = clock.seconds()
            _save(
                checkpoint, stage.model, average, optimisers=optimisers, step=step, seconds=seconds
            )
    return average.module


@cache
def fast_precision() -> torch.dtype:
    """Return the dtype in which this processor multiplies matrices faster.

    bfloat16 if the hardware supports it, else float32: emulated bfloat16 is a hundred times slower.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        torch.mm(matrix, matrix)
        start = time.perf_counter()
        for _ in range(3):
            torch.mm(matrix, matrix)
        seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=lambda dtype: seconds[dtype])


def progress_of(folder: Path, name: str) -> dict[str, float]:
    """Return the steps of a stage's checkpoint and the seconds that they took."""
    state = torch.load(folder / f"{name}.pt", weights_only=True)
    return {"step": state["step"], "seconds": state["seconds"]}


def digest_of(folder: Path, names: Sequence[str]) -> str:
    """Hash the averaged weights of stages: the cache key of what is computed with them."""
    digest = hashlib.sha256()
    for name in names:
        state = torch.load(folder / f"{name}.pt", weights_only=True, mmap=True)["average"]
        for key in sorted(key for key in state if key != "n_averaged"):
            digest.update(key.encode())
            digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def write_checkpoint(
    folder: Path, name: str, model: nn.Module, *, step: int, seconds: float
) -> None:
    """Write a checkpoint of `model`, whose weights also become the average.

    A stage that resumes from it starts with fresh optimiser states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    average.n_averaged.fill_(step)
    _save(folder / f"{name}.pt", model, average, optimisers=[], step=step, seconds=seconds)


def _moving_average(
    decay: float,
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential average whose horizon grows with the step count, to forget the start quickly."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - share)
            else:
                old.copy_(new)

    return update


def averaged_model(stage: Stage, folder: Path) -> nn.Module:
    """Load the averaged weights of a stage's checkpoint, in evaluation mode.

    Raises:
        ValueError: the stage has not been trained yet.
    """
    checkpoint = folder / f"{stage.name}.pt"
    if not checkpoint.exists():
        raise ValueError(f"no {checkpoint}: train the stage {stage.name!r} first")
    state = torch.load(checkpoint, weights_only=True)["average"]
    prefix = "module."
    stage.model.load_state_dict(
        {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    )
    return stage.model.eval().requires_grad_(False)


def _optimisers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in trained if p.ndim < 2 or id(p) in embeddings]
    return [
        Muon(matrices, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay),
        torch.optim.AdamW(
            [{"params": rest, "initial_lr": schedule.learning_rate}],
            lr=schedule.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]


def _step(stage: Stage, optimisers: list[torch.optim.Optimizer], step: int) -> Losses:
    stage.model.train()
    losses = stage.losses(step)
    next(iter(losses.values())).backward()
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * stage.schedule.factor(step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return losses


def _probe(stage: Stage, model: nn.Module, step: int, clock: "_Clock", folder: Path) -> None:
    model.eval()
    with torch.inference_mode():
        values = stage.probe(model)
    row = {"step": step, "minutes": round(clock.seconds() / 60, 2), **values}
    log.info("%s probe %s", stage.name, row)
    with open(folder / f"{stage.name}.csv", "a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.write(",".join(row) + "\n")
        file.write(",".join(f"{value:.5g}" for value in row.values()) + "\n")


def _save(
    path: Path,
    model: nn.Module,
    average: nn.Module,
    *,
    optimisers: list[torch.optim.Optimizer],
    step: int,
    seconds: float,
) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
    }
    partial = path.with_suffix(".partial")
    torch.save(state | {"step": step, "seconds": seconds}, partial)
    partial.rename(path)


def _load(
    path: Path, model: nn.Module, average: nn.Module, optimisers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    saved_optimisers = state["optimisers"] or [optimiser.state_dict() for optimiser in optimisers]
    for optimiser, saved in zip(optimisers, saved_optimisers, strict=True):
        optimiser.load_state_dict(saved)
    log.info("resuming from step %d of %s", state["step"], path)
    return int(state["step"]), float(state["seconds"])


class _Clock:
    """Times training over several sittings; `before` holds the seconds of the earlier ones."""

    def __init__(self) -> None:
        self.before = 0.0
        self._start = self._line = self._checkpoint = time.monotonic()
        self._line_step: int | None = None

    def seconds(self) -> float:
        return self.before + time.monotonic() - self._start

    def report(self, name: str, step: int, steps: int, losses: Losses) -> None:
        now = time.monotonic()
        if self._line_step is None:
            self._line, self._line_step = now, step
        elif now - self._line > 30:
            rate = (step - self._line_step) / (now - self._line)
            text = " ".join(f"{key} {float(value.detach()):.4f}" for key, value in losses.items())
            left = (steps - step) / rate / 60
            log.info(
                "%s step %d of %d, %.2f steps/s, %.0f min left: %s",
                name,
                step,
                steps,
                rate,
                left,
                text,
            )
            self._line, self._line_step = now, step

    def checkpoint_due(self, minutes: float) -> bool:
        due = time.monotonic() - self._checkpoint > 60 * minutes
        if due:
            self._checkpoint = time.monotonic()
        return due
