"""What Hydra and OmegaConf refuse, in one message that says what to do."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from mace_exp.config.options import CONF
from mace_exp.config.suggestions import suggestion, unknown_key
from mace_exp.schemas.data import MasksConfig
from mace_exp.schemas.results import EvaluationConfig, TrackingConfig
from mace_exp.schemas.run import RunConfig


def explain(error: Exception) -> str:
    """Say in one message what Hydra, OmegaConf, YAML or our own checks refused, and what to do."""
    match error:
        case MissingConfigException(missing_cfg_file=str(wanted)):
            return _unknown_option(wanted, error.options or ())
        case OverrideParseException():
            return (
                f"{error.override}: this can't be read as key=value. Quote the whole argument for "
                "the shell, and inside it what holds quotes, commas or brackets: "
                """"concepts=['A, B',Amy Adams]\""""
            )
        case HydraException() | OmegaConfBaseException():
            return _composition_problem(error)
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark()):
            return _syntax_problem(error)
    return str(error)


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    """Name the file and the line where YAML can't be read, and where what it is in began."""
    mark, began = error.problem_mark, error.context_mark
    assert mark is not None
    inside = f" ({error.context} from line {began.line + 1})" if began and error.context else ""
    return f"{mark.name}, line {mark.line + 1}: {error.problem}{inside}"


def _unknown_option(wanted: str, options: Sequence[str]) -> str:
    group, _, option = wanted.rpartition("/")
    choice = f"{group}={option}" if group else option
    known = sorted(options) or sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    hint = suggestion(option, known, f"{group}=")
    own = " Names of your own go into brackets: concepts='[...]'." if group == "concepts" else ""
    return f"{choice}: there is no such option.{hint}{own} {group} takes {', '.join(known)}."


def _composition_problem(error: Exception) -> str:
    """Explain a key or a value that the schemas refused, and name the file that it stands in."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, OmegaConfBaseException):
        cause = error
    place = re.match(r"In '(.+?)': ", str(error))
    where = f"conf/{place[1]}.yaml: " if place and place[1] != "config" else ""
    if not isinstance(cause, OmegaConfBaseException):
        return where + _unknown_group(str(error).removeprefix(place[0] if place else ""))
    key, problem = cause.full_key or str(cause.key), (cause.msg or str(cause)).split("\n")[0]
    if re.match(r"Key '.*' (not in|is not in) ", problem) and is_dataclass(cause.object_type):
        known = [field.name for field in fields(cause.object_type)]
        if not known or cause.object_type in {MasksConfig, EvaluationConfig, TrackingConfig}:
            return (
                f"{where}{key}: this option names no schema; its file needs the line "
                f"defaults: [/schema/{key.split('.')[0]}/<variant>@_here_, _self_]"
            )
        return where + unknown_key(key, known)
    if key.split(".")[0] == "overrides":
        problem += ". It takes settings by concept, as in overrides='{ship: {lora.rank: 4}}'"
    return f"{where}{key}: {_allowed(problem)}"


def _unknown_group(message: str) -> str:
    """Name the likely group where a file overrides one that there is not."""
    wrong = re.match(r"Could not override '([\w/]+)'\. No match", message)
    if not wrong:
        return message.strip()
    return unknown_key(wrong[1], [field.name for field in fields(RunConfig)])


def _allowed(problem: str) -> str:
    """Leave each choice of an enum once in OmegaConf's `expected one of [person, PERSON]`."""
    choices = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", problem)
    if not choices:
        return problem
    names = [name for name in choices[2].split(", ") if name.islower()]
    hint = suggestion(choices[1], names)
    return f"{choices[1]!r} is no choice.{hint} Choices: {', '.join(names)}."
