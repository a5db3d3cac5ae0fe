"""Lists of captions from files: COCO's JSON, plain text, names in templates."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def read_captions(path: Path) -> list[str]:
    """Return the captions of a file: COCO's caption JSON (`.json`), or a text file, one a line.

    Empty lines are left out, white space is made single.

    Raises:
        ValueError: no such file, no text in UTF-8, JSON of another kind, or no caption in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"captions {path} can't be read as text in UTF-8: {error}") from error
    lines = _coco(path, text) if path.suffix.lower() == ".json" else text.splitlines()
    captions = [" ".join(line.split()) for line in lines if line.strip()]
    if not captions:
        raise ValueError(f"captions {path} holds none: give one a line, or COCO's caption JSON")
    return captions


def names_in_templates(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return every name in every template, names side by side, so that a beginning is balanced.

    Raises:
        ValueError: a template without `{}`, or with more than that.
    """
    for template in templates:
        if template.count("{}") != 1 or set(template.replace("{}", "")) & set("{}"):
            raise ValueError(f"template {template!r}: write {{}} once, where the name goes")
    return [template.format(name) for template in templates for name in names]


def _coco(path: Path, text: str) -> Iterable[str]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"captions {path} is no JSON: {error}") from error
    try:
        found = [each["caption"] for each in content["annotations"]]
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"captions {path} is not COCO's caption JSON: a caption stands in "
            '{"annotations": [{"caption": ...}]}, as in captions_train2014.json'
        ) from error
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"captions {path}: every caption must be text")
    return found
