"""Read a run folder; whatever a failed or unfinished run lacks is left empty."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files, recorded_files
from mace_exp.runs.record import ROWS_FILE, ConceptCurves, numbers, read_rows
from mace_exp.utils.files import inside
from mace_exp.utils.reading import read_json as file_json
from mace_exp.utils.reading import regular
from mace_exp.utils.yaml_files import read_plain

log = logging.getLogger(__name__)

RUN_MARKS = ("status.json", "config.yaml", "metrics.json", ROWS_FILE)


@dataclass(frozen=True)
class Sample:
    """One prompt and seed, sampled before and after the edit; paths are None without a file."""

    part: str
    concept: str
    prompt: str
    seed: str
    expected: str
    before: Path | None
    after: Path | None
    before_prediction: str
    after_prediction: str


@dataclass(frozen=True)
class Overlay:
    """One image of an index: a mask over its training image, or attention over a sample."""

    concept: str
    phase: str
    caption: str
    path: Path


@dataclass(frozen=True)
class RunContents:
    """Everything that the report shows, read once."""

    path: Path
    config: dict[str, Any]
    status: dict[str, Any]
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    samples: list[Sample]
    attention: list[Overlay]
    masks: list[Overlay]
    neighbours: Sequence[Mapping[str, str]] = ()

    @property
    def attacks(self) -> Path:
        """The folder of the attacks, which need not be there."""
        return self.path / "attacks"

    @property
    def name(self) -> str:
        """The last two folder names: date and time, or sweep and job."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def failed(self) -> bool:
        return self.status.get("status") == "failed"

    @property
    def finished(self) -> bool:
        return self.status.get("status") == "finished"


def read_run(path: Path) -> RunContents:
    """Read the run in `path`.

    Raises:
        FileNotFoundError: the folder has no file of a run.
    """
    if not is_run(path):
        raise FileNotFoundError(
            f"{path} is not a run folder: it has none of {', '.join(RUN_MARKS)}"
        )
    _warn_of_changes(path)
    return RunContents(
        path=path,
        config=read_config(path),
        status=read_json(path / "status.json"),
        metrics=read_json(path / "metrics.json"),
        rows=read_rows(path / ROWS_FILE),
        samples=read_samples(path / "samples"),
        attention=read_attention(path / "attention"),
        masks=read_masks(path / "masks"),
        neighbours=read_table(path / "neighbours.csv"),
    )


def _warn_of_changes(path: Path) -> None:
    """Warn where the metrics are not those that the run measured."""
    folder, name = RunFolder(path), "metrics.json"
    if name in recorded_files(folder) and changed_files(folder, [name]):
        log.warning("%s is not what the run wrote: it was changed, or damaged", folder.metrics)


def is_run(path: Path) -> bool:
    """Return whether the folder has a file of a run."""
    return any((path / name).is_file() for name in RUN_MARKS)


Value = TypeVar("Value")


def _readable(path: Path, read: Callable[[Path], Any], empty: Value) -> Value:
    """Return what `read` returns; `empty` for a missing or broken file, or another type."""
    try:
        value = read(path)
    except FileNotFoundError:
        return empty
    except (OSError, csv.Error, ValueError) as error:
        log.warning("%s can't be read (%s) and is left out", path, error)
        return empty
    return value if isinstance(value, type(empty)) else empty


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing or broken."""
    return _readable(path, file_json, {})


def read_config(path: Path) -> dict[str, Any]:
    """Read the composed configuration; a run that was refused has none."""
    return _readable(path / "config.yaml", read_plain, {})


def group_in(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Return a group's settings in a run's config.yaml; empty if that holds something else."""
    found = config.get(group)
    return found if isinstance(found, dict) else {}


def read_samples(folder: Path) -> list[Sample]:
    """Read samples/prompts.csv."""
    return [
        Sample(
            **{name: row.get(name) or "" for name in _SAMPLE_TEXTS},
            before=image_in(folder, row.get("before")),
            after=image_in(folder, row.get("after")),
        )
        for row in read_table(folder / "prompts.csv")
    ]


_SAMPLE_TEXTS = (
    *("part", "concept", "prompt", "seed", "expected"),
    *("before_prediction", "after_prediction"),
)


def read_attention(folder: Path) -> list[Overlay]:
    """Read attention/index.csv: captions are the prompts."""
    return _overlays(folder, lambda row: row.get("prompt") or "")


def read_masks(folder: Path) -> list[Overlay]:
    """Read masks/index.csv."""
    return _overlays(folder, lambda row: f"image {row.get('image_index') or ''}")


def _overlays(folder: Path, caption: Callable[[Mapping[str, str]], str]) -> list[Overlay]:
    rows = read_table(folder / "index.csv")
    found = [(row, image_in(folder, row.get("file"))) for row in rows]
    return [
        Overlay(row.get("concept") or "", row.get("phase") or "", caption(row), path)
        for row, path in found
        if path
    ]


def read_table(path: Path) -> list[Mapping[str, str]]:
    """Read a CSV file with a header; no rows if it is missing."""

    def rows(file: Path) -> list[dict[str, str]]:
        with regular(file).open(encoding="utf-8", newline="") as opened:
            return list(csv.DictReader(opened))

    return _readable(path, rows, [])


def image_in(folder: Path, name: str | None) -> Path | None:
    """Return the file that a table names, if it exists and is inside the folder."""
    if not name:
        return None
    path = folder / name
    return path.resolve() if inside(folder, path) and path.is_file() else None


def read_curves(rows: list[dict[str, Any]]) -> ConceptCurves:
    """Return the curves of training by concept: of every event whose rows have a concept and a
    step."""
    curves = ConceptCurves()
    for row in rows:
        event, measures = row.get("event"), numbers(row)
        step = measures.pop(f"{event}/step", None)
        if "concept" in row and step is not None:
            named = {k.removeprefix(f"{event}/"): v for k, v in measures.items() if "/" in k}
            curves.add(str(row["concept"]), int(step), named)
    return curves


def median_curve(curves: ConceptCurves, measure: str) -> list[tuple[float, float]]:
    """Return the median over the concepts at every step with a value of the measure."""
    key = f"{measure}/median"
    return [(float(step), found[key]) for step, found in curves.quantiles() if key in found]
