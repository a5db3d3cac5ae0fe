"""Read the description of the edit in a run folder."""

from __future__ import annotations

from typing import Any

from mace_exp.runs.folder import RunFolder
from mace_exp.utils.reading import read_json


def edit_facts(folder: RunFolder) -> dict[str, Any]:
    """Return the content of erased.json.

    Raises:
        ValueError: it is missing, or does not say which model was edited.
    """
    try:
        facts = read_json(folder.facts)
    except FileNotFoundError:
        raise ValueError(
            f"{folder.facts} is missing: {folder.root} is not the folder of a finished run; "
            f"continue it by python -m mace_exp resume={folder.root}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder.facts} can't be read: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), dict):
        raise ValueError(f"{folder.facts} does not say which model was edited")
    return facts
