"""Keeps every test offline; gives the command line as a function, tiny models and a browser."""

from __future__ import annotations

import gc
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mace_exp
from mace_exp.config.hydra_shortcuts import quick_hydra
from mace_exp.utils.threads import limit_spinning
from tests.chromium import Browser, find_chromium
from tests.sweep_jobs import Command, Jobs
from tests.whole_run import PEOPLE, SMALL, Run

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    from mace_exp.models.text import PromptEncoder

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("WANDB_API_KEY", None)
os.environ["NETRC"] = os.devnull  # where `wandb login` leaves a key
os.environ.pop("HYDRA_FULL_ERROR", None)
limit_spinning()  # before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # torch's threads of several processes wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take a process for each processor, and four at most: each needs a gigabyte or more."""
    return min(os.cpu_count() or 1, 4)


def pytest_collection_finish() -> None:
    """Keep what the tests' modules have imported out of all later collections of garbage, such as
    those at the end of each job of a sweep: it stays, and is most of what there is."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Save what Hydra does again at every command, and do not wait for the disk: a run writes a
    hundred files."""
    with quick_hydra(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the command line in this process."""
    from mace_exp.__main__ import main

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["mace_exp", *arguments])
        main()

    return run


@pytest.fixture
def refusal(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """Run a command that must be refused, in an empty folder; return its message."""

    def refused(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            command(*arguments)
        assert stop.value.code in (1, 2)
        return str(stop.value)

    return refused


@pytest.fixture
def stand_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[..., object]], None]:
    """Put a function in the place of `pipeline.run`, for commands in an empty folder."""

    def replace(run: Callable[..., object]) -> None:
        module = types.ModuleType("mace_exp.pipeline")
        module.__dict__["run"] = run
        monkeypatch.setitem(sys.modules, "mace_exp.pipeline", module)
        monkeypatch.setattr(mace_exp, "pipeline", module, raising=False)
        monkeypatch.chdir(tmp_path)

    return replace


@pytest.fixture
def jobs(stand_in: Callable[[Callable[..., object]], None]) -> Jobs:
    """Let the jobs of sweeps be stand-ins."""
    fake = Jobs()
    stand_in(fake.run)
    return fake


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command; return the code that it exits with, 0 where it just returns, or the message
    of a refusal."""
    from mace_exp.__main__ import main

    def run(*arguments: str, command: Callable[[], None] = main) -> object:
        monkeypatch.setattr(sys, "argv", ["mace_exp", *arguments])
        try:
            command()
        except SystemExit as stop:
            return str(stop) if stop.code == 2 else stop.code
        return 0

    return run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as a diffusers folder."""
    from mace_exp.models.saving import save_pipeline
    from tests.tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_pipeline(tiny_pipeline(), folder)
    return folder


@pytest.fixture(scope="session")
def checked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a safety checker that finds fault with every picture."""
    from mace_exp.models.saving import save_pipeline
    from tests.tiny import tiny_pipeline, with_strict_checker

    folder = tmp_path_factory.mktemp("checked") / "model"
    save_pipeline(with_strict_checker(tiny_pipeline()), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    """A tiny random model of 24 text positions."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline(context_length=24)


@pytest.fixture(scope="module")
def encoder(pipeline: StableDiffusionPipeline) -> PromptEncoder:
    from mace_exp.models.text import stable_diffusion_encoder

    return stable_diffusion_encoder(pipeline)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs of one file share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def arguments(tiny_folder: Path, cache: Path) -> list[str]:
    """Arguments that make a whole run small."""
    return ["model=path", f"model.source={tiny_folder}", f"cache_dir={cache}", *SMALL]


@pytest.fixture
def run(command: Callable[..., None], tmp_path: Path, arguments: list[str]) -> Run:
    """Run the command on the tiny model in this process; return the run's folder."""

    def whole(name: str, *more: str) -> Path:
        folder = tmp_path / name
        where = f"hydra.sweep.dir={folder}" if "-m" in more else f"hydra.run.dir={folder}"
        flags_first = sorted([*arguments, where, *more], key=lambda each: each != "-m")
        command(*flags_first)
        return folder

    return whole


@pytest.fixture(scope="session")
def people_run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of two people, to be read alone; its cache lies beside it."""
    from mace_exp.__main__ import main

    root = tmp_path_factory.mktemp("people")
    places = (f"cache_dir={root / 'cache'}", f"hydra.run.dir={root / 'run'}")
    with pytest.MonkeyPatch.context() as patch:
        model = ("model=path", f"model.source={tiny_folder}")
        patch.setattr(sys, "argv", ["mace_exp", *model, *SMALL, PEOPLE, *places])
        main()
    return root / "run"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with one page; tests that need it are left out where none is installed."""
    program = find_chromium()
    if program is None:
        pytest.skip("no chromium is installed")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
