"""The pages promise nothing that the commands refuse: every command and every key in them is read.

Nothing is run and no torch is needed; files that a page speaks of need not be there.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

from mace_exp.cli.arguments import expand
from mace_exp.cli.help import groups, help_text
from mace_exp.config import validation as crossing
from mace_exp.config.composing import composed_run
from mace_exp.config.options import VARIANTS
from mace_exp.config.run_config import RunConfig
from mace_exp.utils.conf import CONF

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mace_exp"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "experiments").glob("*/README.md"))
PAGES.append(ROOT / "mace_exp" / "mini" / "weights" / "README.md")
READERS_OWN = ("experiment=theirs", "experiment=mine")
"""Files that the reader writes before the command."""
ENDINGS = {"csv", "json", "jsonl", "txt", "md", "png", "html", "safetensors", "yaml"}
COMMA = re.compile(r",(?![^\[]*\])")
"""Between the values of a sweep, and not inside a list."""
COMMAND = re.compile(r"(?:python|torchrun \S+) -m ((?:mace_exp|experiments)\b[\w.]*)(.*)")


def blocks(text: str) -> list[str]:
    """Return the fenced blocks that are no Python."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language != "python"]


def inline(text: str) -> list[str]:
    """Return what stands between single backticks, outside of fenced blocks."""
    without = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", without)]


def plain(command: str) -> list[str]:
    """Return the arguments of a command line, with a word in the place of each placeholder."""
    command = re.sub(r"\s(#|>)\s.*", "", command)
    command = re.sub(r"\[<[^>]*> \.\.\.\]", "x", command)
    command = re.sub(r"(experiment=(?:published/)?)<name>", r"\1celebrity_10", command)
    return shlex.split(re.sub(r"<[^>]*>", "x", command))


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield (where, module, arguments) of each command in the pages and in the text of --help."""
    for page in PAGES:
        where, text = page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")
        lines = [line for block in blocks(text) for line in block.splitlines()]
        for line in [*lines, *inline(text)]:
            if match := COMMAND.search(line):
                yield where, match[1], match[2]
            elif line.startswith("experiment="):
                yield where, "mace_exp", line
    for line in help_text().splitlines():
        match = COMMAND.match(line.strip())
        if match and "[group=option" not in line:
            yield "--help", match[1], match[2]


COMMANDS = sorted(set(commands()))
RUNS = [each for each in COMMANDS if each[1] == "mace_exp"]
OTHERS = [each for each in COMMANDS if each[1] != "mace_exp"]


@pytest.fixture(autouse=True)
def nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files and servers that a page speaks of be there."""
    monkeypatch.setattr(crossing, "missing_files", lambda config: ())


@cache
def compose_once(*arguments: str) -> None:
    """Compose a run; pages that share a command need not do so again."""
    composed_run(*arguments)


def check_run(arguments: list[str]) -> None:
    """Compose what a command asks for; of a sweep as many jobs as hold each of its values. Raises
    ValueError where it refuses."""
    sweep = "-m" in arguments
    given, search = [each for each in arguments if not each.startswith("-")], []
    if "--help" in arguments:
        assert {group.name for group in groups()} >= set(given)
        return
    if "--cfg" in arguments:
        given.remove("job")
    if "--config-dir" in arguments:
        folder = arguments[arguments.index("--config-dir") + 1]
        given.remove(folder)
        if (ROOT / folder).exists():  # and not the reader's own
            search = [f"hydra.searchpath=['file://{ROOT / folder}']"]
    for launcher in (each for each in given if each.startswith("hydra/launcher=")):
        assert (CONF / "hydra" / "launcher" / f"{launcher.partition('=')[2]}.yaml").is_file()
    own = [each for each in given if not each.startswith(("hydra", "resume=", *READERS_OWN))]
    if own == ["experiment=published/celebrity_10"]:  # in a sentence: the caches are said there
        own += ["preservation.prior.cache=x", "preservation.domain.cache=x"]
    choices = [[each] for each in own]
    if sweep:
        keys = [each.partition("=") for each in own]
        choices = [[f"{key}={value}" for value in COMMA.split(values)] for key, _, values in keys]
    for number in range(max(map(len, choices), default=1)):
        job = [values[min(number, len(values) - 1)] for values in choices]
        compose_once(*search, *expand(job))


@pytest.mark.parametrize(("where", "module", "rest"), RUNS)
def test_a_run_of_the_pages_is_accepted(where: str, module: str, rest: str) -> None:
    check_run(plain(rest))


class Accepted(Exception):
    """The arguments were read."""


def accepting(read: Callable[..., object]) -> Callable[..., None]:
    def parse(parser: argparse.ArgumentParser, args: list[str] | None = None) -> None:
        read(parser, args)
        raise Accepted

    return parse


@pytest.mark.parametrize(("where", "module", "rest"), OTHERS)
def test_another_command_of_the_pages_is_accepted(
    where: str, module: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = plain(rest)
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{where}: there is no {module}"
    alone = not arguments or arguments == ["build"]  # named in a sentence, without its arguments
    if alone:
        return
    for read in (
        argparse.ArgumentParser.parse_args,
        argparse.ArgumentParser.parse_known_intermixed_args,
    ):
        monkeypatch.setattr(argparse.ArgumentParser, read.__name__, accepting(read))
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    name = f"{module}.__main__" if spec.submodule_search_locations else module
    with pytest.raises(Accepted):
        importlib.import_module(name).main()
    if module == "mace_exp.check":
        check_run(arguments)


def known_keys() -> set[str]:
    """Return every key that some variant of a group has, and the groups themselves."""

    def walk(schema: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(schema)
        for name in (field.name for field in dataclasses.fields(schema)):
            yield f"{prefix}{name}"
            if isinstance(hints[name], type) and dataclasses.is_dataclass(hints[name]):
                yield from walk(hints[name], f"{prefix}{name}.")

    variants = ((group, each) for group, known in VARIANTS.items() for each in known.values())
    return set(walk(RunConfig, "")) | {
        key for group, schema in variants for key in walk(schema, f"{group}.")
    }


KEYS = known_keys()
FREE = ("concepts.kinds.", "anchors.per_concept.", "preservation.terms.", "preservation.weights.")


def settings(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield (key, value or None) of the settings that a page names in a sentence or a table."""
    for code in inline(text):
        for word in code.split():
            match = re.fullmatch(r"([a-z]\w*(?:[./][\w*]+)*)(?:=(.*))?", word)
            if match and "(" not in code and "--" not in code:
                yield match[1], match[2]


def is_setting(key: str, value: str | None) -> bool:
    """Whether a word is meant as a setting: it begins with a group's name and a dot, or has a
    value."""
    first, _, rest = key.partition(".")
    groups = {field.name for field in dataclasses.fields(RunConfig)}
    if rest.rpartition(".")[2] in ENDINGS or key.startswith(("hydra", *FREE)):
        return False
    return first in groups and (bool(rest) or value is not None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_that_a_page_names_are_there(page: Path) -> None:
    named = {each for each in settings(page.read_text(encoding="utf-8")) if is_setting(*each)}
    for key, value in sorted(named, key=str):
        wanted = re.compile(re.escape(key).replace(r"\*", r"\w+") + "$")
        assert any(wanted.match(known) for known in KEYS), f"{page.name}: {key} is no key"
        option = re.fullmatch(r"[\w/]+", value or "")
        if option and (CONF / key).is_dir() and f"{key}={value}" not in READERS_OWN:
            assert (CONF / key / f"{value}.yaml").is_file(), f"{page.name}: {key}={value}"


def test_extras_and_files_that_the_pages_name_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for extra in re.findall(r"mace-exp\[(\w+)\]", text):
            assert extra in project["optional-dependencies"], f"{page.name}: {extra}"
        for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for file in re.findall(r"`((?:tests|docs|conf|experiments)/[\w./]+\.\w+)`", text):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def test_modules_that_the_architecture_names_are_there() -> None:
    """Each path is relative to the package or the repository, or to a folder in the same row; a
    name in the row of a question is in one of its modules."""
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    found = 0
    for line in lines:
        spans = [each for each in inline(line) if re.fullmatch(r"[\w./{},]+", each)]
        folders = [ROOT, PACKAGE, *(PACKAGE / each for each in spans if each.endswith("/"))]
        modules: list[Path] = []
        for name in (name for each in spans for name in unbraced(each)):
            if name.endswith((".py", "/")) and name != ".py":
                places = [folder / name for folder in folders if (folder / name).exists()]
                assert places, f"{name} is not there: {line}"
                modules.append(places[0])
        found += len(modules)
        texts = [file.read_text(encoding="utf-8") for file in modules if file.suffix == ".py"]
        names = [each for each in spans if re.fullmatch(r"[A-Za-z]\w*(\.(?!py$)[a-z_]+)?", each)]
        if texts and "?" in line:
            for name in names:
                last = name.split(".")[-1]
                assert any(last in text for text in texts), f"{name} is in no module: {line}"
    assert found > 60


def unbraced(name: str) -> list[str]:
    """Return the names that `a/{b,c}.py` stands for."""
    braces = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [braces[1] + part + braces[3] for part in braces[2].split(",")] if braces else [name]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("lora.rnak=4", "Did you mean lora.rank"),
        ("-m lora.rank=1,zero", "it takes a whole number"),
        ("masks=atention", "Did you mean masks=attention"),
    ],
)
def test_a_wrong_command_would_be_found(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_run(plain(wrong))


def test_there_is_something_to_check() -> None:
    assert len(RUNS) > 30 and len(OTHERS) > 10
    named = {each for page in PAGES for each in settings(page.read_text(encoding="utf-8"))}
    assert len({key for key, value in named if is_setting(key, value)}) > 60
