"""A recogniser as an external process, called through CSV tables.

Standard input: a CSV with the column `file`, an absolute path of a PNG in each row. Standard
output: a CSV with the columns `file`, `class`, `probability`, one or more rows per file in any
order; a row without a class says that nothing, or no face, was found in that file.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.judges.base import SUBJECT, JudgeError
from mace_exp.utils.files import save_png
from mace_exp.utils.picture_cache import PictureCache
from mace_exp.utils.texts import shown

COLUMNS = ("file", "class", "probability")
NOTHING = "nothing found"
"""The class of a picture in which no class is recognised."""
EXPECTED = "expected are lines of file,class,probability after this header, at least one per file"
LAST_LINES = 5
"""Lines of standard error quoted in an error message."""

Named = Mapping[str, float]
"""The class probabilities in the output for one picture; empty if nothing was found."""


class CommandRecogniser:
    """Runs a command on pictures. Implements `Classifier` and `PersonScorer` of
    `evaluation.judges.base`."""

    def __init__(self, words: Sequence[str], classes: Sequence[str], *, timeout: float) -> None:
        """`classes` are the expected class names; others in the output are appended to them."""
        self._words, self._timeout = list(words), timeout
        self.classes = {SUBJECT: (NOTHING, *classes)}
        self._rows = {name_key(name): row for row, name in enumerate(self.classes[SUBJECT])}
        self._seen = PictureCache(self._look)

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the probabilities [n, classes], zero for classes that are not in the output."""
        named = self._seen.of(images)
        rows = [{self._row(name): p for name, p in each.items()} for each in named]
        found = np.zeros((len(images), len(self.classes[SUBJECT])))
        for index, each in enumerate(rows):
            found[index, list(each)] = list(each.values())
            found[index, 0] = float(not each)
        return {SUBJECT: found}

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return 1 for each picture in which something was found, else 0, [n]."""
        return np.array([float(bool(each)) for each in self._seen.of(images)])

    def _row(self, name: str) -> int:
        plain = name_key(name)
        if plain not in self._rows:
            self._rows[plain] = len(self.classes[SUBJECT])
            self.classes = {SUBJECT: (*self.classes[SUBJECT], name)}
        return self._rows[plain]

    def _look(self, images: np.ndarray) -> list[Named]:
        with tempfile.TemporaryDirectory(prefix="mace-exp-judge-") as folder:
            files = [Path(folder).resolve() / f"{index:05d}.png" for index in range(len(images))]
            for file, image in zip(files, images, strict=True):
                save_png(file, image)
            output = run_command(self._words, files, timeout=self._timeout)
        return read_answers(shlex.join(self._words), output, [str(file) for file in files])


def run_command(words: Sequence[str], files: Sequence[Path], *, timeout: float) -> bytes:
    """Run a command with a table of files on its standard input; return its standard output.

    Raises:
        JudgeError: it can't be started, fails, or does not end within `timeout` seconds; then it is
            killed with its child processes.
    """
    command, table = shlex.join(words), "\n".join(["file", *map(str, files), ""])
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise JudgeError(f"{command} can't be started: {error.strerror or error}") from error
    try:
        output, told = process.communicate(table.encode(), timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise JudgeError(
            f"{command} did not end within judge.timeout = {timeout:g} seconds for {len(files)} "
            "pictures, and was ended: give more time, or see whether it waits for something"
        ) from error
    finally:
        _end(process)
    if process.returncode:
        lines = told.decode(errors="replace").splitlines()[-LAST_LINES:]
        raise JudgeError(
            f"{command} ended with code {process.returncode}. Its last lines: "
            f"{shown(' | '.join(lines)) or 'none'}"
        )
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that is still running, with its child processes: an interpreter behind `conda
    run` would keep the pipes open."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def read_answers(command: str, output: bytes, files: Sequence[str]) -> list[Named]:
    """Return the classes that a command names for each of `files`; of several faces of one person
    the highest probability counts.

    Raises:
        JudgeError: the output has another format; the message names the line and what is expected.
    """

    def refuse(line: int, fault: str) -> JudgeError:
        return JudgeError(f"{command}: line {line} of its output {fault}: {EXPECTED}")

    try:
        lines = list(csv.reader(io.StringIO(output.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise refuse(1, f"can't be read as UTF-8 CSV ({error})") from error
    if not lines or tuple(cell.strip() for cell in lines[0]) != COLUMNS:
        begins = shown(",".join(lines[0])[:80]) if lines else "nothing"
        raise refuse(1, f"is {begins!r}, not {','.join(COLUMNS)}")
    found: dict[str, dict[str, float]] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        try:
            file, name, probability = _cells(cells, files)
        except ValueError as error:
            raise refuse(number, str(error)) from error
        named = found.setdefault(file, {})
        if name:
            named[name] = max(probability, named.get(name, 0.0))
    absent = [file for file in files if file not in found]
    if absent:
        raise refuse(
            len(lines),
            f"is the last, and {len(absent)} of {len(files)} files have none, the first "
            f"{absent[0]}",
        )
    return [found[file] for file in files]


def _cells(cells: Sequence[str], files: Sequence[str]) -> tuple[str, str, float]:
    """Return file, class and probability of a line. Raises ValueError that says what is wrong."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"has {len(cells)} cells, not {len(COLUMNS)}")
    file, name, text = (cell.strip() for cell in cells)
    if file not in files:
        raise ValueError(f"names {shown(file[:80])!r}, which is none of the files")
    if not name:
        return file, "", 0.0
    try:
        probability = float(text)
    except ValueError:
        raise ValueError(f"has the probability {shown(text[:40])!r}, which is no number") from None
    if not 0 <= probability <= 1:
        raise ValueError(f"has the probability {probability:g}, not one from 0 to 1")
    return file, name, probability
