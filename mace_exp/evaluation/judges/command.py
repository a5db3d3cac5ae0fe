"""`judge=command`: an external recogniser, such as one in another Python environment, as a command
that reads a CSV of files and writes a CSV of classes."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mace_exp.concepts.captions import read_captions
from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.judges.base import (
    PERSON,
    SUBJECT,
    JudgeConfig,
    JudgeError,
    JudgeTask,
)
from mace_exp.evaluation.judges.packages import without
from mace_exp.utils.hashing import file_digest
from mace_exp.utils.ranges import POSITIVE

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.process import CommandRecogniser

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CommandJudge(JudgeConfig):
    """Runs a command with a CSV of files on its standard input and a CSV of classes and
    probabilities on its standard output."""

    name = "command"
    supports = frozenset({SUBJECT})
    scope = "the names in judge.classes"
    batch = None  # one call for all, as the program may load its model at every start

    command: str  # split into words as a shell does; no shell runs it
    classes: str | None  # a text file with a name per line; null: all subjects of the run
    finds_faces: bool  # an empty class means that no face was found
    timeout: Annotated[float, POSITIVE]  # seconds for all pictures of a phase

    def answers(self) -> frozenset[str]:
        return self.supports | ({PERSON} if self.finds_faces else frozenset())

    def words(self) -> list[str]:
        """Return the words of the command.

        Raises:
            ValueError: a quotation mark is not closed.
        """
        return [str(Path(each).expanduser()) for each in shlex.split(self.command)]

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        try:
            program = self.words()[0]
            if shutil.which(program) is None:
                yield (
                    f"judge.command = {self.command}: there is no program {program!r} that can be "
                    "run: give its path, or its interpreter's before it"
                )
        except (ValueError, IndexError) as error:
            yield f"judge.command = {self.command} can't be split into words: {error}"
        try:
            self.known_subjects()
        except ValueError as error:
            yield f"judge.classes = {self.classes}: {error}"

    def check(self, task: JudgeTask) -> None:
        """Try the command on one picture: how it starts and what it prints is known before hours of
        drawing."""
        log.info("judge.command is tried on one grey picture")
        try:
            self.open(task).try_out()
        except JudgeError as error:
            raise ValueError(f"judge.command, tried on one grey picture: {error}") from error

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        """Return the settings with the checksums of the files that the command names, so that a
        changed script judges again."""
        settings = without(super().inputs(subjects), "timeout")
        files = [Path(word) for word in self.words() if Path(word).is_file()]
        digests = {file.name: file_digest(file) for file in files}
        return settings | {"classes": sorted(self.known_subjects() or ()), "files": digests}

    def known_subjects(self) -> frozenset[str] | None:
        if self.classes is None:
            return None
        return frozenset(read_captions(Path(self.classes).expanduser()))

    def metrics(self) -> Sequence[str]:
        return ("faces",) if self.finds_faces else ()

    def open(self, task: JudgeTask) -> CommandRecogniser:
        from mace_exp.evaluation.recognisers.process import CommandRecogniser

        known = self.known_subjects()
        classes = sorted(task.subjects if known is None else known)
        return CommandRecogniser(self.words(), classes, timeout=self.timeout)
