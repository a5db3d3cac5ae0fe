"""What an earlier edit left in the run's folder: it goes before it is taken for this run's."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.config.run_config import Stage
from mace_exp.runs.provenance import deciding_facts, settings_facts

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)

_READING = {Stage.metrics, Stage.report}
"""Stages that show what is there; `metrics` itself refuses pictures of another edit."""
_WEIGHTS = {Stage.cfr, Stage.lora, Stage.fusion}
"""Stages that write weights into the folder."""
_MARKS = {"samples": "prompts.csv", "attention": "index.csv", "erased": "model_index.json"}
"""The file in each folder of a run's by which it is one: others of these names are the user's."""


def remove_other_edit(work: Run) -> None:
    """Remove what the folder holds of an edit by other settings, or of another model, before the
    first stage.

    What was drawn and measured goes with any stage that makes something: a run that then fails
    must not show it under the new settings. The edit itself goes where weights of the new one
    will lie beside it.
    """
    stages, folder = set(work.config.stages), work.folder
    if stages <= _READING or _is_of_these_settings(work):
        return
    edit = (folder.edit, folder.facts, folder.erased)
    _remove(folder.root, (*folder.results, *(edit if stages & _WEIGHTS else ())))


def remove_results(work: Run) -> None:
    """Remove what was drawn and measured of the edit that the folder held."""
    _remove(work.folder.root, work.folder.results)


def _is_of_these_settings(work: Run) -> bool:
    own = json.loads(json.dumps(settings_facts(work), default=str))  # as a file gives them back
    try:
        found = json.loads(work.folder.facts.read_text(encoding="utf-8"))
        earlier = deciding_facts(own | found)  # an earlier version may have written less
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nothing says what the folder's results are of
    return earlier == deciding_facts(own)


def _remove(root: Path, paths: Iterable[Path]) -> None:
    there = [path for path in paths if (path / _MARKS.get(path.name, "")).is_file()]
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if there:
        names = ", ".join(path.name for path in there)
        log.info("removed from %s, as it is of an earlier edit: %s", root, names)
