"""YAML from untrusted sources: read as plain data, or refused at once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml

from mace_exp.utils.reading import decoded_text, regular

LARGEST = 500_000
"""Largest file in bytes: enough for some ten thousand names."""
DEEPEST = 40
"""Most levels of nesting; the schemas of the package have five."""
MAX_VALUES = 200_000
"""Most values in a file, where values repeated by aliases count at every place."""
_Quick: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built with it


class _Loader(_Quick):
    """Refuses a key that a mapping has twice, of which only the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known and key.value != "<<":
                said = f"duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            known.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def read_plain(file: Path) -> Any:
    """Read a file of settings; interpolations in it stay text. A byte order mark is
    skipped, and that of UTF-16 obeyed.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no YAML, no regular file, too large, not UTF-8, nested too deeply, holds
            too many values (nested aliases can stand for billions), or a value contains itself;
            the message names the file.
    """
    return parsed(checked_text(file), file)


def checked_text(file: Path) -> str:
    """Return the text of a file of settings. Raises OSError and ValueError as `read_plain`."""
    size = regular(file).stat().st_size
    if size > LARGEST:
        raise ValueError(f"{file} has {size} bytes: at most {LARGEST} are read")
    try:
        text = decoded_text(file.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it in UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(f"{file} is not UTF-8 text (it holds NUL characters): save it in UTF-8")
    return text


def parsed(text: str, file: Path) -> Any:
    """Return the values in a text of `file`. Raises ValueError as `read_plain`."""
    try:
        if _depth(named_stream(text, file)) > DEEPEST:
            raise ValueError(f"{file} is nested more than {DEEPEST} levels deep")
        content = yaml.load(named_stream(text, file), _Loader)
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(_located(error, text, file)) from error
    except ValueError as error:  # an invalid date or number
        raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error
    if _count(content, {}, file) > MAX_VALUES:
        raise ValueError(
            f"{file} stands for more than {MAX_VALUES} values: its aliases repeat others"
        )
    return content


def syntax_problem(error: yaml.MarkedYAMLError) -> str:
    """Return file and line of a YAML error, and the line where the enclosing block began."""
    mark, began = error.problem_mark, error.context_mark
    assert mark is not None
    inside = f" ({error.context} from line {began.line + 1})" if began and error.context else ""
    return f"{mark.name}, line {mark.line + 1}: {error.problem}{inside}"


def _located(error: yaml.YAMLError, text: str, file: Path) -> str:
    """Return the message of an error, that of the loader in Python if it has one: it is more
    detailed."""
    try:
        yaml.load(named_stream(text, file), yaml.SafeLoader)
    except yaml.MarkedYAMLError as told:
        return syntax_problem(told)
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return syntax_problem(error)
    return f"{file} can't be read as YAML: {' '.join(str(error).split())}"


def named_stream(text: str, file: Path) -> io.StringIO:
    """Return the text as a stream with the name of the file, for YAML's messages."""
    stream = io.StringIO(text)
    stream.name = str(file)  # type: ignore[attr-defined]
    return stream


def _depth(text: io.StringIO) -> int:
    """Return the depth of nesting from the parser's events, without building values."""
    depth = deepest = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
        if deepest > DEEPEST:
            break
    return deepest


def _count(node: Any, known: dict[int, int], file: Path) -> int:
    """Return the number of values, including those repeated by aliases; each is visited once."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError(f"{file}: a value holds itself, by an alias")
        return known[id(node)]
    known[id(node)] = -1
    inner = node.values() if isinstance(node, dict) else node
    known[id(node)] = 1 + sum(_count(each, known, file) for each in inner)
    return known[id(node)]
