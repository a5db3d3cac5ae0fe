"""Explain errors of Hydra and OmegaConf in one message with a remedy."""

import errno
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import unquote

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import ListConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from mace_exp.config.early import no_such_option, options_of, types_of
from mace_exp.config.open_keys import is_open
from mace_exp.config.options import CONF, VARIANTS
from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import as_typed, suggestion, unknown_key
from mace_exp.utils.files import is_out_of_room
from mace_exp.utils.ranges import expected
from mace_exp.utils.texts import cut
from mace_exp.utils.yaml_files import syntax_problem

_NULL = "is null: a value is needed here; the word itself is written 'null', in quotes"
_ROOM, _RIGHTS = "make room, or name another place", "change its permissions, or name another place"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EFBIG: _ROOM,
    getattr(errno, "EDQUOT", errno.ENOSPC): _ROOM,
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}
"""What to do after an error of the system, by its number."""


def named_option(argument: str) -> str:
    """Quote the null of `masks=null`, so that it is refused like any unknown option: Hydra, which
    expects text, would not name the group."""
    group, _, value = argument.partition("=")
    is_group = group.startswith("hydra/") or (group.isidentifier() and (CONF / group).is_dir())
    no_text = re.fullmatch(r"null|true|false|[-+]?\d[\d._]*", value, re.IGNORECASE)
    return f"{group}='{value}'" if is_group and no_text else argument


def explain(error: Exception) -> str:
    """Return one message, with a remedy, for an error of Hydra, OmegaConf, YAML or our checks. What
    is too long to read is cut in its middle."""
    return cut(_explained(error))


def _explained(error: Exception) -> str:
    match error:
        case RecursionError():
            return "the command, or a file that it names, has brackets nested too deeply"
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
        case OSError(filename=str() | Path()) if error.errno in _REMEDIES:
            return f"{error.filename}: {error.strerror}: {_REMEDIES[error.errno]}"
        case OSError() if is_out_of_room(error):
            return f"{error}: make room on the disks of the folders that are written to"
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark()):
            return syntax_problem(error)
    return str(error)


def _unknown_option(wanted: str, options: Sequence[str]) -> str:
    parts = wanted.split("/")
    depth = 2 if parts[0] == "hydra" else 1 if len(parts) > 1 else 0
    group, option = "/".join(parts[:depth]), "/".join(parts[depth:])
    typed = any(each.startswith(f"{group}=") for each in sys.argv)
    where = "" if typed else next(_files_that_choose(group, option), "")
    nested = [each for each in options_of(group) if "/" in each]
    for file in (folder / group / f"{option}.yml" for folder in _folders()):
        if file.is_file():
            return f"{where}{group}={option}: rename {file} to {option}.yaml, as Hydra needs it"
    return where + no_such_option(group, option, sorted({*options, *nested}) or options_of(group))


def _files_that_choose(group: str, option: str, *, begins: str = r"\s*-.*") -> Iterator[str]:
    """Yield the files whose defaults list contains the option; Hydra does not name them. `begins`
    is a pattern of what precedes the group in its line."""
    name = re.escape(option)
    chosen = re.compile(rf"^{begins}\b{group}(@\S+)?:\s*['\"]?{name}['\"]?\s*(#.*)?$", re.MULTILINE)
    for folder in _folders():
        for file in sorted(each for each in folder.rglob("*.yaml") if each.is_file()):
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
    """Suggest a group if a file overrides an unknown one; say that a key needs no plus, and what a
    comma means."""
    several = re.match(r"Ambiguous value for argument '([^=]+)=(.*)'\n", message)
    if several:
        key, values = several.groups()
        hints = [] if (CONF / key).is_dir() else [str(each) for each in types_of(key)]
        instead = [f"quote one value that has a comma, \"{key}='{values}'\""] if hints else []
        if "[" not in values and any("list[" in each for each in hints):
            instead.append(f'put a list into brackets, "{key}=[{values}]"')
        said = "".join(f"{each}, " for each in instead)
        return (
            f"{key}={values}: commas separate the values of a sweep: {said}{'or ' * bool(said)}add "
            "--multirun"
        )
    twice = re.match(r"Multiple values for ([\w/]+)\. To override .*: (\S+)'", message)
    if twice:
        group, option = twice.groups()
        where = next(_files_that_choose(group, option, begins=r"\s*-\s*/?"), "")
        return f"{where}{group} is chosen already: write '- override /{group}: {option}'"
    known = re.match(r"Could not append to config. An item is already at '(.+?)'", message)
    if known:
        return f"+{known[1]}: {known[1]} is a key already: give {known[1]}=..., without +"
    wrong = re.match(r"Could not override '([\w/]+)'\. No match", message)
    if not wrong:
        return message.strip()
    return unknown_key(wrong[1], [field.name for field in fields(RunConfig)])


def _key_problem(cause: OmegaConfBaseException, *, typed: bool) -> str:
    """Explain an error in a key or its value, which may come from the command line."""
    key, problem = cause.full_key or str(cause.key), (cause.msg or str(cause)).split("\n")[0]
    key = unquote(key) if is_open(key) else key
    group = key.split(".")[0]
    unknown = isinstance(cause, ConfigKeyError | ConfigAttributeError)
    if unknown and not typed and isinstance(cause.key, str) and "." in cause.key:
        written = cause.key.replace(".", ": {") + ": ..." + "}" * cause.key.count(".")
        return f"{cause.key}: keys of a file are nested, without dots: write {written}"
    if unknown and is_dataclass(cause.object_type):
        known = [field.name for field in fields(cause.object_type)]
        others = _options_with(key, group)
        variants = VARIANTS.get(group, {})
        if cause.object_type in variants.values() and others:
            chosen = next(name for name, each in variants.items() if each is cause.object_type)
            return (
                f"{key}: {group}={chosen} has no such key, it is one of {group}="
                f"{' and '.join(others)}: choose that, or leave {key} out"
            )
        if cause.object_type in variants.values() or (known and group not in variants):
            return unknown_key(key, known)
        return (
            f"{key}: the file of this option has no schema; it needs the line "
            f"defaults: [/schema/{group}/<variant>@_here_, _self_]"
        )
    if group == "overrides":
        said = _wrong_shape(problem, cause) if problem.startswith("Cannot") else problem
        hint = "Give settings by concept, as in overrides='{ship: {lora.rank: 4}}'"
        return f"{key}: {said}. {hint}"
    if "is not a subclass of TermConfig" in problem:
        given = problem.rpartition(" value: ")[2]
        return f"{key} = {given}: it takes keys with values, as in {key}.captions=[a boat]"
    whole = re.match(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", problem)
    if whole:
        return _no_group(whole[1], whole[2])
    if re.match(r"Cannot (merge|assign) .*(Dict|List)", problem) and cause.key not in _hints(cause):
        return f"{'a list of settings' if key == 'None' else key}: {_wrong_shape(problem, cause)}"
    if isinstance(cause, ValidationError):
        return _wrong_value(key, problem, cause, typed=typed)
    return f"{key}: {problem}"


def _options_with(key: str, group: str) -> list[str]:
    """Return the options of a group that have a key, such as evaluation.templates."""
    name = key.removeprefix(f"{group}.").split(".")[0]
    return [
        option
        for option, schema in VARIANTS.get(group, {}).items()
        if name in {field.name for field in fields(schema)}
    ]


def _wrong_shape(problem: str, cause: OmegaConfBaseException) -> str:
    """Say what belongs where a list stands for keys with values, or either for a single value."""
    if "merge" in problem:  # OmegaConf's words are the same for both directions
        takes_list = isinstance(cause.parent_node, ListConfig) or not cause.full_key
        given = "keys with values" if takes_list else "a list"
    else:
        takes_list = "List" in problem.rpartition(" to ")[2]
        found = re.search(r"Cannot assign (\w+)", problem)
        shapes = {"DictConfig": "keys with values", "ListConfig": "a list"}
        given = shapes.get(found[1] if found else "", "a single value")
    wanted = "a list, in brackets" if takes_list else "keys with values, as in {key: value}"
    return f"it takes {wanted}; here is {given}"


def _no_group(schema: str, given: str) -> str:
    """Explain a single value in place of a group's keys; `schema` is the name of its class."""
    options = [(g, each) for g, known in VARIANTS.items() for each in known.values()]
    groups = [*get_type_hints(RunConfig, include_extras=True).items(), *options]
    group = next((name for name, each in groups if getattr(each, "__name__", "") == schema), schema)
    return (
        f"{group} = {given[:60]}: it takes keys with values. An option is chosen in the file's "
        f"defaults, as in - override /{group}: <option>"
    )


def _hints(cause: OmegaConfBaseException) -> dict[str, Any]:
    schema = cause.object_type
    return get_type_hints(schema, include_extras=True) if schema else {}


def _wrong_value(key: str, problem: str, cause: ValidationError, *, typed: bool) -> str:
    """State which values a key accepts, and how to write a list as an argument."""
    given = as_typed(cause.value)
    choices = re.search(r"expected one of \[(.*)\]", problem)
    if choices:
        hint = suggestion(given, choices[1].split(", "))
        return f"{key}: {given!r} is not allowed.{hint} Choices: {choices[1]}."
    hints = _hints(cause)
    if cause.key not in hints and (cause.value is None or "is not Optional" in problem):
        return f"{key} {_NULL}"
    if cause.key not in hints:
        return f"{key}: {problem}"
    example = ""
    if typed and " is not a ListConfig" in problem:
        example = f", as in {'concepts' if key == 'concepts.names' else key}='[{given}]'"
    return f"{key} = {given}: it takes {expected(key, hints[cause.key])}{example}"
