"""One small run in a separate process, interrupted in some way, and its results.

Processes are forked from one that has imported everything, so that they start quickly and hundreds
of trials are possible.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from mace_exp import pipeline
from mace_exp.__main__ import main
from mace_exp.runs.cache import OWN
from mace_exp.runs.context import Context
from mace_exp.utils.hashing import file_digest

SMALL = (
    *("concepts=[Adam Driver,Amy Adams]", "lora=mini", "sampling=mini", "sampling.steps=1"),
    *("images.per_concept=2", "prompts.count=3", "lora.steps=2", "lora.batch_size=1"),
    *("preservation.prior.count=8", "preservation.domain.count=8", "kept.people=[Amy Poehler]"),
    *("evaluation.images_per_part=2", "evaluation.parts=[erased,preserved]"),
    *("evaluation.attention_maps=1", "tracking=none", "device=cpu"),
)
RESULTS = ("edit.safetensors", "metrics.json", "samples/after/0000.png", "samples/before/0001.png")
"""Files that must be bit-identical, however a run was interrupted."""


@dataclass(frozen=True)
class Place:
    """The files of a trial: its run folder, its cache, and the output of its process."""

    root: Path

    run = property(lambda self: self.root / "run")
    cache = property(lambda self: self.root / "cache")
    printed = property(lambda self: self.root / "printed.txt")

    def copy_to(self, state: Path) -> None:
        """Copy the folders, without the output."""
        state.mkdir(parents=True)
        for folder in (self.run, self.cache):
            if folder.exists():
                shutil.copytree(folder, state / folder.name, symlinks=True)

    def restore(self, state: Path) -> None:
        """Make the folders what was copied; the output is lost."""
        shutil.rmtree(self.root)
        shutil.copytree(state, self.root, symlinks=True)

    def arguments(self, model: Path) -> list[str]:
        """Return the command of the whole run."""
        source = ("model=path", f"model.source={model}")
        return [*source, *SMALL, f"hydra.run.dir={self.run}", f"cache_dir={self.cache}"]


def begun(arguments: list[str], printed: Path, prepare: Callable[[], object] | None = None) -> int:
    """Start a command in a forked process, and return its id; `prepare` is called in it first."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (
            open(file, "w", buffering=1, closefd=False)
            for file in (1, 2)  # not those of pytest
        )
        if prepare is not None:
            prepare()
        sys.argv = ["mace_exp", *arguments]
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(arguments: list[str], printed: Path, prepare: Callable[[], object] | None = None) -> int:
    """Run a command in a forked process; return its exit code."""
    return ended(begun(arguments, printed, prepare))


def import_for(arguments: list[str], printed: Path) -> None:
    """Run a command, then import all that it imported: each process that is forked afterwards
    begins with it, which halves the time of a trial.

    Raises:
        RuntimeError: the command failed.
    """
    names = printed.with_name("modules.txt")

    def named(main: Callable[[], object] = main) -> None:
        main()
        names.write_text("\n".join(sys.modules))

    if run(arguments, printed, lambda: globals().update(main=named)) != 0:
        raise RuntimeError(f"the first run failed: {printed.read_text()}")
    for name in names.read_text().split():
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()  # a forked process would look through all that was imported again and again


def killed_after(process: int, seconds: float) -> bool:
    """Kill a process after a time; return whether it was still running."""
    time.sleep(seconds)
    if os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        os.kill(process, signal.SIGKILL)
        ended(process)
        return True
    ended(process)
    return False


def keeping_states(place: Place, states: Path) -> Callable[[], None]:
    """Return a function that makes its process copy the files of a place to numbered folders in
    `states`, right before and right after each rename: what a kill there would leave. (Files are
    renamed when they are complete: there are no other boundaries.)"""

    def prepare() -> None:
        rename, numbers = os.replace, count()

        def replace(source: object, target: object) -> None:
            place.copy_to(states / str(next(numbers)))
            rename(source, target)  # type: ignore[arg-type]
            place.copy_to(states / str(next(numbers)))

        os.replace = replace  # type: ignore[assignment]

    return prepare


def without_room(size: int, stage: str | None) -> Callable[[], None]:
    """Return a function that limits the files of its process to `size` bytes, from its start or
    from a stage on."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit if stage is None else lambda: _before(stage, limit)


def short_of_memory(stage: str, size: int) -> Callable[[], None]:
    """Return a function that leaves its process `size` bytes of memory more than it has when a
    stage begins, as `ulimit -v` does."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return lambda: _before(stage, limit)


def _before(stage: str, action: Callable[[], object]) -> None:
    """Let this process call a function when a stage begins."""
    timed = pipeline._timed

    def acting(context: Context, name: str, step: Callable[[], object]) -> dict[str, Any]:
        if name == stage:
            action()
        return timed(context, name, step)

    pipeline._timed = acting


def results(folder: Path) -> dict[str, str]:
    """Return the checksums of the results that exist in a run folder."""
    return {name: file_digest(folder / name) for name in RESULTS if (folder / name).is_file()}


def entries(cache: Path) -> dict[str, tuple[int, int]]:
    """Return the finished entries of a cache, each with its inode and modification time, which
    differ if it is computed again."""
    found = {}
    for path in sorted(cache.glob("*/*")):
        if path.parent.name not in OWN and not path.name.startswith("."):
            facts = path.stat()
            found[f"{path.parent.name}/{path.name}"] = (facts.st_ino, facts.st_mtime_ns)
    return found
