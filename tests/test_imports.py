"""Arrows point down the flow, and each heavy dependency has one door."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mace_exp"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCHEMAS = [f"{file.parent.name}.schema" for file in PACKAGE.glob("*/schema.py")]
LIGHT = (
    *("__main__", "utils.ranges", "concepts.concept", "concepts.prompts", "concepts.captions"),
    *("cli.arguments", "cli.callbacks", "cli.common", "cli.help", "cli.job"),
    *("cli.sweep", "utils.conf"),
    *("attack", "export", "config", "convert", "check.__main__", *SCHEMAS),
)
HEAVY = {"torch", "diffusers", "transformers", "wandb"}


@cache
def imported(file: Path) -> set[str]:
    """Return every module that a file imports, wherever in it, as a dotted name."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {name for node in nodes for name in imported_by(node, file)}


def imported_by(node: ast.AST, file: Path) -> set[str]:
    """Return the modules that one statement of a file may import, as dotted names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    package = file.relative_to(PACKAGE.parent).parent.parts
    base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (base, node.module) if part)
    return {module, *(f"{module}.{alias.name}" for alias in node.names)}


def imports(file: Path, name: str) -> bool:
    return any(found == name or found.startswith(f"{name}.") for found in imported(file))


def importers(name: str) -> set[str]:
    return {file.relative_to(PACKAGE).as_posix() for file in MODULES if imports(file, name)}


def test_hydra_and_omegaconf_come_in_by_two_doors() -> None:
    for name in ("hydra", "omegaconf"):
        doors = {file.split("/")[0] for file in importers(name)}
        assert doors <= {"cli", "config"}


def test_wandb_comes_in_by_one_door() -> None:
    assert importers("wandb") <= {"runs/tracking.py"}


def test_openai_comes_in_by_one_door() -> None:
    assert importers("openai") <= {"concepts/llm/endpoint.py"}


def test_matplotlib_comes_in_by_one_door() -> None:
    assert importers("matplotlib") <= {"report/figures.py"}


def test_only_the_command_line_imports_the_pipeline() -> None:
    assert importers("mace_exp.pipeline") <= {"__main__.py", "attack.py", "cli/job.py"}


def test_the_package_imports_nothing_beside_it() -> None:
    for name in ("experiments", "tests", "docs"):
        assert not importers(name)


def test_what_only_unix_has_is_imported_where_it_may_be_missing() -> None:
    for file in MODULES:
        top = ast.parse(file.read_text(encoding="utf-8")).body
        names = {name for node in top for name in imported_by(node, file)}
        assert not names & {"resource", "fcntl", "pwd", "grp", "termios"}, file


LAYERS = (
    *("utils", "concepts", "models", "runs", "data", "mini", "preservation", "methods"),
    *("evaluation", "attacks", "config", "stages", "recipe", "stage_plan", "check"),
    *("report", "pipeline", "api", "cli"),
)
"""Folders and modules of the package, low to high: imports go downwards alone. Whatever is called
from outside (the loose commands, and __main__ of a folder) stands above them all."""


def layer_of(file: Path) -> str:
    """The layer of a file; "" for what is called from outside."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if parts[0] in LAYERS and parts[-1] != "__main__" else ""


def modules_imported_by(file: Path) -> set[Path]:
    """Our own modules that a file imports, wherever in it, under TYPE_CHECKING too."""
    names = {name for name in imported(file) if name.startswith("mace_exp.")}
    paths = {PACKAGE.parent.joinpath(*name.split(".")) for name in names}
    found = {path.with_suffix(".py") for path in paths} | {path / "__init__.py" for path in paths}
    return {path for path in found if path.is_file()} - {file}


def test_every_folder_and_loose_module_has_its_place() -> None:
    commands = {
        *("attack", "cache", "compare", "convert", "export", "metrics", "rerun", "revise"),
        *("workspace",),
        *("__init__", "__main__"),
    }
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    there |= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert there - commands == set(LAYERS)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    layer = layer_of(file)
    for other in modules_imported_by(file):
        found = layer_of(other)
        if layer and other != PACKAGE / "__init__.py":
            assert found and LAYERS.index(found) <= LAYERS.index(layer), f"{file} imports {other}"


def test_there_is_no_circle() -> None:
    """Among modules, whether they import each other at the top, in functions or for types alone."""
    arrows = {file: modules_imported_by(file) for file in MODULES}
    arrows = {file: {each for each in to if each in arrows} for file, to in arrows.items()}
    while leaves := [file for file, to in arrows.items() if not to]:
        for leaf in leaves:
            del arrows[leaf]
        for to in arrows.values():
            to.difference_update(leaves)
    assert not arrows, sorted(str(file.relative_to(PACKAGE)) for file in arrows)


def test_the_closed_form_is_torch_alone() -> None:
    file = PACKAGE / "methods" / "closed_form.py"
    ours_or_heavy = {name.split(".")[0] for name in imported(file)} - {"torch"}
    assert ours_or_heavy <= {"dataclasses", "collections", "typing", "math", "__future__"}


MATHEMATICS = (
    *("closed_form", "mace/refinement", "mace/fusion", "mace/lora", "mace/stacked", "mace/step"),
    *("mace/attention_loss", "mace/timesteps", "mace/training"),
)


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics_takes_no_configuration(name: str) -> None:
    """Neither schemas nor services of a run: tensors, numbers and models."""
    names = imported(PACKAGE / "methods" / f"{name}.py")
    assert not [each for each in names if ".schema" in each or each.startswith("mace_exp.runs")]


def files_of(module: str) -> list[Path]:
    """The files that importing one of our modules by its dotted name runs."""
    parts = module.split(".")
    folders = [PACKAGE.parent.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    candidates = [*(folder / "__init__.py" for folder in folders), folders[-1].with_suffix(".py")]
    return [file for file in candidates if file.exists()]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_never_import_torch(module: str) -> None:
    """Follow the imports at the top of each module: the command line reaches none that is heavy."""
    todo, seen = files_of(f"mace_exp.{module}"), set[Path]()
    assert todo[1:], "no such module"
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = imported_by(node, file)
            heavy = {name.split(".")[0] for name in names} & HEAVY
            assert not heavy, f"{file} imports {heavy}"
            todo += [
                more for name in names if name.startswith("mace_exp.") for more in files_of(name)
            ]
