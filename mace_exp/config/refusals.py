"""Explain errors of Hydra and OmegaConf in one message with a remedy."""

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from mace_exp.config.options import CONF
from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import as_typed, suggestion, unknown_key
from mace_exp.data.masks.base import MasksConfig
from mace_exp.evaluation.schema import EvaluationConfig
from mace_exp.runs.schema import TrackingConfig
from mace_exp.utils.ranges import expected


def named_option(argument: str) -> str:
    """Quote the null of `masks=null`, so that it is refused like any unknown option: Hydra, which
    expects text, would not name the group."""
    group, _, value = argument.partition("=")
    is_group = group.isidentifier() and (CONF / group).is_dir()
    no_text = re.fullmatch(r"null|true|false|[-+]?\d[\d._]*", value, re.IGNORECASE)
    return f"{group}='{value}'" if is_group and no_text else argument


def explain(error: Exception) -> str:
    """Return one message, with a remedy, for an error of Hydra, OmegaConf, YAML or our checks."""
    match error:
        case MissingConfigException(missing_cfg_file=str(wanted)):
            return _unknown_option(wanted, error.options or ())
        case OverrideParseException():
            return (
                f"{error.override}: this is not key=value. Quote the whole argument for the shell, "
                "and inside it values with quotes, commas or brackets: "
                """"concepts=['A, B',Amy Adams]\""""
            )
        case HydraException() | OmegaConfBaseException():
            return _composition_problem(error)
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark()):
            return _syntax_problem(error)
    return str(error)


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    """Return file and line of a YAML error, and the line where the enclosing block began."""
    mark, began = error.problem_mark, error.context_mark
    assert mark is not None
    inside = f" ({error.context} from line {began.line + 1})" if began and error.context else ""
    return f"{mark.name}, line {mark.line + 1}: {error.problem}{inside}"


def _unknown_option(wanted: str, options: Sequence[str]) -> str:
    group, _, option = wanted.rpartition("/")
    choice = f"{group}={option}" if group else option
    known = sorted(options) or sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    hint = suggestion(option, known, f"{group}=")
    own = ""
    if group == "concepts" and option:
        own = f" To erase other names, use brackets: concepts='[{option}]'."
    typed = any(each.startswith(f"{group}=") for each in sys.argv)
    where = "" if typed else next(_files_that_choose(group, option), "")
    return f"{where}{choice}: there is no such option.{hint}{own} {group} takes {', '.join(known)}."


def _files_that_choose(group: str, option: str) -> Iterator[str]:
    """Yield the files whose defaults list contains the option; Hydra does not name them."""
    name = re.escape(option)
    chosen = re.compile(rf"^\s*-.*\b{group}(@\S+)?:\s*['\"]?{name}['\"]?\s*(#.*)?$", re.MULTILINE)
    for folder in _folders():
        for file in sorted(folder.rglob("*.yaml")):
            if chosen.search(file.read_text(encoding="utf-8", errors="replace")):
                yield f"{file}: "


def _folders() -> list[Path]:
    """Return the folders that are searched for options, from the command line."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd", type=Path, nargs="?")
    given = parser.parse_known_args(sys.argv[1:])[0].config_dir
    return [given, CONF] if given else [CONF]


def _file_of(place: str) -> str:
    """Return the path of a file that Hydra calls `experiment/mine`."""
    paths = [folder / f"{place}.yaml" for folder in _folders()]
    return str(next((path for path in paths if path.is_file()), f"{place}.yaml"))


def _composition_problem(error: Exception) -> str:
    """Explain a key or value that does not fit the schemas, and name its file."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, OmegaConfBaseException):
        cause = error
    place = re.match(r"In '(.+?)': ", str(error))
    where = f"{_file_of(place[1])}: " if place and place[1] != "config" else ""
    if not isinstance(cause, OmegaConfBaseException):
        return where + _unknown_group(str(error).removeprefix(place[0] if place else ""))
    return where + _key_problem(cause, typed=cause is not error and not place)


def _unknown_group(message: str) -> str:
    """Suggest a group if a file overrides an unknown one."""
    wrong = re.match(r"Could not override '([\w/]+)'\. No match", message)
    if not wrong:
        return message.strip()
    return unknown_key(wrong[1], [field.name for field in fields(RunConfig)])


def _key_problem(cause: OmegaConfBaseException, *, typed: bool) -> str:
    """Explain an error in a key or its value, which may come from the command line."""
    key, problem = cause.full_key or str(cause.key), (cause.msg or str(cause)).split("\n")[0]
    group = key.split(".")[0]
    unknown = isinstance(cause, ConfigKeyError | ConfigAttributeError)
    if unknown and is_dataclass(cause.object_type):
        known = [field.name for field in fields(cause.object_type)]
        if known and cause.object_type not in {MasksConfig, EvaluationConfig, TrackingConfig}:
            return unknown_key(key, known)
        return (
            f"{key}: the file of this option has no schema; it needs the line "
            f"defaults: [/schema/{group}/<variant>@_here_, _self_]"
        )
    if group == "overrides":
        hint = "Give settings by concept, as in overrides='{ship: {lora.rank: 4}}'"
        return f"{key}: {problem}. {hint}"
    if isinstance(cause, ValidationError):
        return _wrong_value(key, problem, cause, typed=typed)
    return f"{key}: {problem}"


def _wrong_value(key: str, problem: str, cause: ValidationError, *, typed: bool) -> str:
    """State which values a key accepts, and how to write a list as an argument."""
    given = as_typed(cause.value)
    choices = re.search(r"expected one of \[(.*)\]", problem)
    if choices:
        hint = suggestion(given, choices[1].split(", "))
        return f"{key}: {given!r} is not allowed.{hint} Choices: {choices[1]}."
    hints = get_type_hints(cause.object_type, include_extras=True) if cause.object_type else {}
    if cause.key not in hints:
        return f"{key}: {problem}"
    example = ""
    if typed and " is not a ListConfig" in problem:
        example = f", as in {'concepts' if key == 'concepts.names' else key}='[{given}]'"
    return f"{key} = {given}: it takes {expected(key, hints[cause.key])}{example}"
