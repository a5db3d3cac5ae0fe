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
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

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
TRIAL = (1, 64, 64, 3)
"""Shape [n, H, W, 3] of the picture on which a command is tried."""
MOST_PER_FILE = 1 << 20
"""Bytes of output per picture: a program that prints more, perhaps without end, is ended."""
POLL = 0.05
"""Seconds between two looks at a running command."""

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
        rows = [[(self._row(name), p) for name, p in each.items()] for each in named]
        found = np.zeros((len(images), len(self.classes[SUBJECT])))
        for index, each in enumerate(rows):
            for row, probability in each:  # two spellings of one name share a row
                found[index, row] = max(found[index, row], probability)
            found[index, 0] = float(not each)
        return {SUBJECT: found}

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return 1 for each picture in which something was found, else 0, [n]."""
        return np.array([float(bool(each)) for each in self._seen.of(images)])

    def try_out(self) -> None:
        """Ask about one grey picture. Raises JudgeError as `run_command` and `read_answers`."""
        self._look(np.full(TRIAL, 128, np.uint8))

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

    Its streams are files, because a pipe has no end while a child process that it left behind
    keeps it open.

    Raises:
        JudgeError: it can't be started, fails, prints more than `MOST_PER_FILE` for each file, or
            does not end within `timeout` seconds; then it is killed with its child processes.
    """
    command, table = shlex.join(words), "\n".join(["file", *map(str, files), ""])
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as answers,
        tempfile.TemporaryFile() as told,
    ):
        asked.write(table.encode())
        asked.seek(0)
        try:
            process = subprocess.Popen(
                words, stdin=asked, stdout=answers, stderr=told, start_new_session=True
            )
        except OSError as error:
            raise JudgeError(f"{command} can't be started: {error.strerror or error}") from error
        try:
            fault = _fault(process, (answers, told), pictures=len(files), timeout=timeout)
        finally:
            _end(process)
        if fault:
            raise JudgeError(f"{command} {fault}")
        if process.returncode:
            raise JudgeError(
                f"{command} ended with code {process.returncode}. Its last lines: "
                f"{_last_lines(told) or 'none'}"
            )
        answers.seek(0)
        return answers.read()


def _fault(
    process: subprocess.Popen[bytes], streams: Sequence[IO[bytes]], *, pictures: int, timeout: float
) -> str:
    """Wait until a process ends; return "", or why it has to be ended."""
    most, deadline = MOST_PER_FILE * (pictures + 1), time.monotonic() + timeout
    while process.poll() is None:
        if max(os.fstat(each.fileno()).st_size for each in streams) > most:
            return f"printed more than {most >> 20} MiB for {pictures} pictures, and was ended"
        if time.monotonic() > deadline:
            return (
                f"did not end within judge.timeout = {timeout:g} seconds for {pictures} pictures, "
                "and was ended: give more time, or see whether it waits for something"
            )
        time.sleep(POLL)
    return ""


def _last_lines(told: IO[bytes]) -> str:
    told.seek(max(0, told.seek(0, os.SEEK_END) - MOST_PER_FILE))
    return shown(" | ".join(told.read().decode(errors="replace").splitlines()[-LAST_LINES:]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that is still running, with its child processes, such as an interpreter behind
    `conda run`."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


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
    found, known = dict[str, dict[str, float]](), frozenset(files)
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        try:
            file, name, probability = _cells(cells, known)
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


def _cells(cells: Sequence[str], files: Collection[str]) -> tuple[str, str, float]:
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
