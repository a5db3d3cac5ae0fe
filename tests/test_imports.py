"""Arrows point down the flow, and each heavy dependency has one door."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mace_exp"
MODULES = sorted(PACKAGE.rglob("*.py"))
LIGHT = (
    *("__main__", "config", "schemas", "ranges", "concepts", "prompts", "captions", "command"),
    *("convert", "export"),
)


@cache
def imported(file: Path) -> set[str]:
    """Return every module that a file imports, wherever in it, as a dotted name."""
    names: set[str] = set()
    package = (*file.relative_to(PACKAGE.parent).parent.parts,)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def imports(file: Path, name: str) -> bool:
    return any(found == name or found.startswith(f"{name}.") for found in imported(file))


def importers(name: str) -> set[str]:
    return {file.relative_to(PACKAGE).as_posix() for file in MODULES if imports(file, name)}


def test_hydra_and_omegaconf_come_in_by_two_doors() -> None:
    for name in ("hydra", "omegaconf"):
        assert importers(name) <= {"__main__.py", "config.py"}


def test_wandb_comes_in_by_one_door() -> None:
    assert importers("wandb") <= {"tracking.py"}


def test_openai_comes_in_by_one_door() -> None:
    assert importers("openai") <= {"llm/endpoint.py"}


def test_matplotlib_comes_in_by_one_door() -> None:
    assert importers("matplotlib") <= {"report/figures.py"}


def test_only_the_command_line_imports_the_pipeline() -> None:
    assert importers("mace_exp.pipeline") <= {"__main__.py"}


def test_evaluation_imports_neither_erasure_nor_data() -> None:
    for name in ("mace_exp.erasure", "mace_exp.data"):
        assert not [file for file in importers(name) if file.startswith("evaluation/")]


def test_the_closed_form_is_torch_alone() -> None:
    file = PACKAGE / "erasure" / "closed_form.py"
    if not file.exists():
        pytest.skip("no erasure/closed_form.py in this checkout")
    ours_or_heavy = {name.split(".")[0] for name in imported(file)} - {"torch"}
    assert ours_or_heavy <= {"dataclasses", "collections", "typing", "math", "__future__"}


def test_mathematics_takes_no_configuration() -> None:
    for name in ("mace_exp.config", "mace_exp.schemas"):
        assert not [file for file in importers(name) if file.startswith("erasure/")]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_never_import_torch(module: str) -> None:
    """Follow the imports at the top of each module: the command line reaches none that is heavy."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        file = PACKAGE / f"{name.replace('.', '/')}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            for found in modules:
                assert found.split(".")[0] not in {"torch", "diffusers", "transformers", "wandb"}
                if found.startswith("mace_exp"):
                    todo += [found.removeprefix("mace_exp."), *names]
