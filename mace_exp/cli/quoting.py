"""Quote arguments that Hydra's grammar refuses, such as names with accents or paths with
parentheses. Ambiguous ones are refused, with a corrected argument in the message."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mace_exp.config.composing import quoted
from mace_exp.config.open_keys import NAMED_KEYS, NO_TEXT, encoded, is_open
from mace_exp.utils.reading import at_home

_FLAT = ("concepts.kinds.", "anchors.per_concept.")
"""Mappings to a single value: what follows is the name, whatever dots it has."""
_STRUCTURED = "[{'\""
_NO_NAME = re.compile(rf"(?<=[{{,])\s*({NO_TEXT})\s*(?=:)", re.IGNORECASE)
"""A key of a mapping that Hydra would not read as text: {1984: object}."""


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments, with quotation marks around values that Hydra can't parse.

    A leading `~/` of a value is replaced by the user's home folder, as in a shell.

    Raises:
        ValueError: an argument is ambiguous; the message shows how to write it.
    """
    parser = OverridesParser.create()
    return [_as_typed(parser, each) for each in arguments]


def _as_typed(parser: OverridesParser, argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    value = at_home(value)
    if value.startswith("\\\\"):  # a network drive of Windows; Hydra would halve them
        value = quoted(value)
    if is_open(key.lstrip("+")) and not set("'\"") & set(value):
        value = _NO_NAME.sub(lambda found: encoded(found[1]), value)
    if is_open(key.lstrip("+")):
        _check_keys(key, value)
    argument = f"{key}={value}"
    flat = key.lstrip("+").startswith(_FLAT) and key.count(".") > 2
    if _parses(parser, argument) and not flat:
        return argument
    if flat or not _parses(parser, f"{key}=0"):
        raise ValueError(_wrong_key(argument, key, value))
    repaired = f"{key}={_value(key, value)}"
    if not _parses(parser, repaired):
        raise ValueError(_message(key, value))
    return repaired


def _parses(parser: OverridesParser, argument: str) -> bool:
    try:
        parser.parse_override(argument)
    except HydraException:
        return False
    return True


def _value(key: str, value: str) -> str:
    """Return a value in Hydra's grammar: a scalar is quoted, a list or mapping is read as YAML."""
    if not value.lstrip().startswith(tuple(_STRUCTURED)):
        if "," in value:
            raise ValueError(_message(key, value))
        return quoted(value)
    if value.lstrip()[0] in "'\"":
        raise ValueError(_message(key, value))
    try:
        _check_plain(f"[{value}]")
        choices = yaml.load(f"[{value}]", Loader=yaml.BaseLoader)
        return ",".join(_written(each, names=is_open(key.lstrip("+"))) for each in choices)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(_message(key, value)) from error


def _check_plain(text: str) -> None:
    """Raise ValueError where YAML takes marks of the text for its own: tags (!), anchors (&)."""
    for event in yaml.parse(text, yaml.BaseLoader):
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ValueError("a name with a mark of YAML's needs quotation marks")


def _check_keys(key: str, value: str) -> None:
    """Raise ValueError for a mapping that holds a name twice, of which Hydra takes the last."""
    try:
        node = yaml.compose(f"{{{value.strip()[1:-1]}}}", yaml.BaseLoader)
    except yaml.YAMLError:  # Hydra's grammar, which takes more, or a mistake that it tells
        return
    names = [each.value for each, _ in getattr(node, "value", [])] if value[:1] == "{" else []
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"{key.lstrip('+')} holds {twice!r} twice: give it once")


def _written(value: Any, *, names: bool) -> str:
    """Return a YAML value in Hydra's grammar; with `names`, its keys may be any text."""
    if isinstance(value, dict):
        if any(set(":=") & set(key) and each == "" for key, each in value.items()):
            raise ValueError("an equals sign, or a colon without the space that YAML needs")
        pairs = (f"{_key(k, names=names)}: {_written(v, names=False)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(each, names=False) for each in value) + "]"
    plain = re.fullmatch(r"[-+.\w]*\d[-+.\w]*|true|false|null", value, re.ASCII | re.IGNORECASE)
    return value if plain else quoted(value)


def _key(key: str, *, names: bool) -> str:
    written = encoded(key)
    if written != key and not names:
        raise ValueError(f"{key!r} is no key")
    return written


def _message(key: str, value: str) -> str:
    """Return a message that names the refused character and shows how to write the value."""
    key = {"concepts.names": "concepts"}.get(key.lstrip("+"), key.lstrip("+"))
    argument, odd = f"{key}={value}", _odd(value)
    what = f"{odd!r} can't stand there without quotation marks" if odd else "this is not key=value"
    if value.lstrip().startswith(("[", "{")):
        inner = value.strip().removeprefix("[").removesuffix("]")
        names = [_unquoted(each.strip()) for each in inner.split(",") if each.strip()]
        listed = f"{key}=[{','.join(map(quoted, names))}]"
        if value.lstrip().startswith("{"):
            return (
                f"{argument}: {what}. Write mappings in braces, {{name: value}}, and put names "
                f"with , : {{ }} or # into quotation marks, as in {key}='{{\"A, B\": ...}}'"
            )
        return f"{argument}: {what}. Quote each name: {_for_shell(listed)}"
    plain = _unquoted(value.strip())
    return f"{argument}: {what}. Quote the whole value: {_for_shell(f'{key}={quoted(plain)}')}"


def _unquoted(text: str) -> str:
    """Return a text without the quotation marks around it; those of a part of it stay."""
    whole = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if whole else text


def _for_shell(argument: str) -> str:
    """Return an argument quoted for the shell, in double quotes if the shell expands nothing in
    it."""
    return shlex.quote(argument) if re.search(r'["$`\\!]', argument) else f'"{argument}"'


def _odd(value: str) -> str | None:
    found = re.search(r"[^\w\s/\-\\+.$%*@?|:,\[\]{}]|[^\x00-\x7f]", value)
    return found[0] if found else None


def _wrong_key(argument: str, key: str, value: str) -> str:
    """Return a message for a key that can't be parsed; with the mapping for a key with a name."""
    for named in NAMED_KEYS:
        if key.lstrip("+").startswith(f"{named}."):
            name = key.lstrip("+").removeprefix(f"{named}.")
            setting = ""
            if named == "overrides":
                name, _, setting = name.partition(".")
            inner = f"{{{setting}: {value}}}" if setting else value
            whole = _for_shell(f"{named}={{{name}: {inner}}}")
            given = f"{key.lstrip('+')}={value}"
            return f"{given}: a name with spaces or marks is written in braces: {whole}"
    odd = _odd(key)
    what = f"{odd!r} can't stand in a key" if odd else "this is not key=value"
    return (
        f"{argument}: {what}. Quote the whole argument for the shell, and inside it values with "
        """quotes, commas or brackets: "concepts=['A, B',Amy Adams]\""""
    )
