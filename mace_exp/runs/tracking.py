"""The tracker of a run: always a record on disk, and Weights & Biases if configured.

This is the only module that imports wandb, and only when a run is opened.
"""

from __future__ import annotations

import configparser
import importlib.util
import logging
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mace_exp.runs.record import (
    ROWS_FILE,
    ConceptCurves,
    Picture,
    RunRecord,
    Tracker,
    numbers,
    plain,
)

if TYPE_CHECKING:
    import numpy as np
    from wandb import Settings
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

MODES = ("auto", "offline", "online", "disabled")
PANEL_LIMIT = 20  # more concepts than this are shown as a table and quantiles, not as panels
IMAGES_PER_ROW = 100  # wandb keeps at most 108 pictures of one logged list
CONNECT_SECONDS = 20.0
FINISH_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class TrackerOptions:
    """Names of a run in Weights & Biases, and how it connects (`mode` is one of MODES)."""

    mode: str = "auto"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    name: str | None = None


def open_tracker(
    run_dir: Path,
    options: TrackerOptions,
    *,
    config: Mapping[str, Any] | None = None,
    concept_count: int = 0,
) -> Tracker:
    """Return the tracker of `run_dir`, to be used as a context manager.

    `concept_count` decides whether each concept gets its curves (see PANEL_LIMIT).

    Raises:
        ModuleNotFoundError: the mode is online or offline, and wandb is not installed.
    """
    mode = resolve_mode(options.mode)
    record = RunRecord(run_dir / ROWS_FILE)
    if mode == "disabled":
        return Tracker(record)

    @contextmanager
    def connect() -> Iterator[WandbSink]:
        with staging_in(run_dir.resolve() / "wandb"):
            run = start_wandb(run_dir.resolve(), options, mode=mode, config=dict(config or {}))
            if run.offline:
                log.info(
                    "Weights & Biases is offline: `wandb sync %s` sends it later", run.sync_dir
                )
            yield WandbSink(run, panels=concept_count <= PANEL_LIMIT)

    return Tracker(record, connect)


def resolve_mode(mode: str) -> str:
    """Resolve `auto`: online with an API key, offline without one, disabled without wandb."""
    installed = importlib.util.find_spec("wandb") is not None
    if not installed and mode in ("online", "offline"):
        raise ModuleNotFoundError(f"tracking.mode={mode} needs wandb: pip install wandb")
    if mode != "auto":
        return mode
    if not installed:
        return "disabled"
    requested = os.environ.get("WANDB_MODE", "")
    if requested in MODES and requested != "auto":
        return requested
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Return whether wandb will find an API key: in the environment, or saved by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    homes = [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    given = os.environ.get("NETRC")
    file = Path(given).expanduser() if given else next(filter(Path.exists, homes), homes[0])
    try:
        found = netrc.netrc(file).authenticators(urlsplit(_server()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


def _server() -> str:
    """Return the server's address: the environment's, `wandb login --host`'s, or the public one."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    saved = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, UnicodeError):
        saved.read(folder / "settings", encoding="utf-8")
    configured = saved.get("default", "base_url", fallback=None)
    return os.environ.get("WANDB_BASE_URL") or configured or "https://api.wandb.ai"


@contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Redirect wandb's staging folders (tables, artifacts, cache) to the run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "WANDB_DIR": str(folder.parent),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_ARTIFACT_DIR": str(folder / "artifacts"),
        "WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false"),
    }
    earlier = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in earlier.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_wandb(
    run_dir: Path, options: TrackerOptions, *, mode: str, config: dict[str, Any]
) -> Run:
    """Start a wandb run in `run_dir`; offline, with a warning, if the server can't be reached."""
    import wandb

    def start(mode: str) -> Run:
        return wandb.init(
            project=options.project,
            entity=options.entity,
            group=clipped(options.group, 128),
            name=clipped(options.name, 128),
            tags=[tag[:64] for tag in options.tags if tag],  # wandb rejects longer ones
            config=plain(config),
            dir=str(run_dir),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb_settings(),
        )

    try:
        return start(mode)
    except wandb.Error as error:
        if mode == "offline":
            raise
        reason = str(error).splitlines()[0]
        log.warning("Weights & Biases can't be reached (%s): this run is recorded offline", reason)
        return start("offline")


def wandb_settings() -> Settings:
    """Return settings for which a killed run keeps its rows and a lost server costs little time."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",  # progress bars would fill the log
        save_code=False,
        reinit="create_new",  # the default returns a run that a failed job left open
        init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", CONNECT_SECONDS)),
        finish_timeout=FINISH_SECONDS,
        x_transaction_log_flush_interval=1.0,  # the default, 15 s, loses short runs
    )


def clipped(text: str | None, length: int) -> str | None:
    """Truncate a name to the service's limit."""
    return text[:length] if text else None


class WandbSink:
    """Send rows to Weights & Biases in a form that displays well."""

    def __init__(self, run: Run, *, panels: bool) -> None:
        self._run, self._panels = run, panels
        self._axes: set[str] = set()
        self._curves: dict[str, ConceptCurves] = {}

    @property
    def url(self) -> str | None:
        """The run's page; None offline."""
        return self._run.url

    def row(self, event: str, values: Mapping[str, Any]) -> None:
        """Log the numbers of a row; stages go to the summary, concepts to their curves."""
        measures = {k if "/" in k else f"{event}/{k}": v for k, v in numbers(values).items()}
        axis = f"{event}/step"
        if axis in measures:
            self._define_axis(event)
        if event == "stage":
            stage = values.get("stage", "?")
            measures = {k.replace("stage/", f"stage/{stage}/", 1): v for k, v in measures.items()}
            self._run.summary.update(measures)
        elif "concept" in values and axis in measures:
            self._concept_row(event, str(values["concept"]), measures)
        elif measures:
            self._run.log(measures)

    def _define_axis(self, event: str) -> None:
        if event not in self._axes:
            self._axes.add(event)
            self._run.define_metric(f"{event}/step", hidden=True)
            self._run.define_metric(f"{event}/*", step_metric=f"{event}/step")

    def _concept_row(self, event: str, concept: str, measures: dict[str, float]) -> None:
        step = int(measures.pop(f"{event}/step"))
        short = {name.removeprefix(f"{event}/"): value for name, value in measures.items()}
        self._curves.setdefault(event, ConceptCurves()).add(concept, step, short)
        if self._panels:
            panels = {f"{event}/{name}/{concept}": value for name, value in short.items()}
            self._run.log({f"{event}/step": step, **panels})

    def images(self, name: str, pictures: Sequence[Picture]) -> None:
        """Log images in rows short enough for the service to keep completely."""
        import wandb

        shown = [wandb.Image(picture_source(p), caption=p.caption) for p in pictures]
        for start in range(0, len(shown), IMAGES_PER_ROW):
            self._run.log({name: shown[start : start + IMAGES_PER_ROW]})

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
        """Log a table of plain values."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=plain(rows))})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set final values in the run's summary."""
        self._run.summary.update(dict(values))

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Log a file or a folder as an artifact of this run."""
        import wandb

        artifact = wandb.Artifact(f"{name}-{self._run.id}", type=kind)  # versions within one run
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, code: int) -> None:
        """Log the per-concept summaries, then finish the run with its exit code."""
        try:
            for event, curves in self._curves.items():
                self._summarize(event, curves)
            self._run.summary["exit_code"] = code
        finally:
            self._run.finish(exit_code=code)

    def _summarize(self, event: str, curves: ConceptCurves) -> None:
        """Log a table of the concepts, the final medians, and quantiles by step."""
        columns, rows = curves.table()
        self.table(f"{event}/concepts", columns, rows)
        self._run.summary.update({f"{event}/{k}": v for k, v in curves.last().items()})
        for step, values in curves.quantiles():
            quantiles = {f"{event}/{name}": value for name, value in values.items()}
            self._run.log({f"{event}/step": step, **quantiles})


def picture_source(picture: Picture) -> str | np.ndarray:
    """Return the argument of wandb.Image: a path as text, an array unchanged."""
    return str(picture.image) if isinstance(picture.image, Path) else picture.image
