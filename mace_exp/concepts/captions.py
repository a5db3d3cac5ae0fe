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
    text = _text("captions", path)
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
        if not _is_template(template):
            raise ValueError(f"template {template!r}: {_WANTED}")
    return [template.format(name) for template in templates for name in names]


def read_templates(path: Path) -> dict[int, str]:
    """Return the templates of a text file, one a line, by the numbers of their lines.

    Empty lines are left out, white space is made single.

    Raises:
        ValueError: no such file, no text in UTF-8, no template in it, or a line that has no `{}`
            or several.
    """
    lines = enumerate(_text("templates", path).splitlines(), start=1)
    templates = {number: " ".join(line.split()) for number, line in lines if line.strip()}
    for number, template in templates.items():
        if not _is_template(template):
            raise ValueError(f"templates {path}, line {number}, {template!r}: {_WANTED}")
    if not templates:
        raise ValueError(f"templates {path} holds none: give one a line, {{}} where the name goes")
    return templates


_WANTED = "write {} once, where the name goes, and no other brace"


def _is_template(line: str) -> bool:
    return line.count("{}") == 1 and not set(line.replace("{}", "")) & set("{}")


def _text(what: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} can't be read as text in UTF-8: {error}") from error


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
