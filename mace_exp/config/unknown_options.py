"""Find arguments that choose an unknown option of a group, before the slow import of Hydra.

Only what Hydra would refuse in any case is found, in the same words: other forms of values, and
commands that read option files of the user's, are left to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mace_exp.config.suggestions import suggestion
from mace_exp.config.unknown_keys import adds_files
from mace_exp.utils.conf import CONF

_CHOICE = re.compile(r"([a-z_]+)=([A-Za-z_][\w-]*)")
"""`group=option`; Hydra reads null, true and false as no text."""
_NO_TEXT = ("null", "true", "false")
_WHOLE = ("experiment", "sweep")
"""Groups that users add files to, and that a run needs no option of."""


def unknown_options(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a message for each argument with an unknown option."""
    others = any(each.startswith(("-", "sweep=", "resume=")) for each in arguments)
    if others or adds_files(arguments):
        return
    for argument in dict.fromkeys(arguments):
        found = _CHOICE.fullmatch(argument)
        if found and found[2].lower() not in _NO_TEXT and (CONF / found[1]).is_dir():
            known = options_of(found[1])
            if found[2] not in known:
                yield no_such_option(found[1], found[2], known)


def options_of(group: str) -> list[str]:
    """Return the options of a group, sorted; those in a subfolder with its name."""
    folder = CONF / group
    files = folder.rglob("*.yaml") if group else ()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def no_such_option(group: str, option: str, known: Sequence[str]) -> str:
    """Return the message for an unknown option of a group; `known` are those that it has."""
    choice = f"{group}={option}" if group else option
    hint = suggestion(option, known, f"{group}=")
    own = ""
    if group == "concepts" and option:
        own = f" To erase other names, use brackets: concepts='[{option}]'."
    if group in _WHOLE and option.lower() in ("", *_NO_TEXT, "none"):
        own = f" Leave {group} out for none."
    elif group in _WHOLE:
        name = option.rpartition("/")[2].removesuffix(".yaml")
        own = f" A file of yours is found by --config-dir DIR, as DIR/{group}/{name}.yaml."
    return f"{choice}: there is no such option.{hint}{own} {group} takes {', '.join(known)}."
