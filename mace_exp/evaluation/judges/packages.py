"""Check for packages and files that judges need, without heavy imports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mace_exp.utils.hashing import file_digest

INSTALL = "pip install 'mace-exp[judges]'"
NUDENET = "nudenet"
"""Value of a detector setting that selects the network in NudeNet's wheel."""


def missing_packages(judge: str, *names: str) -> Iterator[str]:
    """Yield a message for each package that is not installed."""
    for name in names:
        if find_spec(name) is None:
            yield f"judge={judge} needs {name}, which is not installed: {INSTALL}"


def onnx_problems(key: str, source: str) -> Iterator[str]:
    """Yield a message if an ONNX file, or NudeNet's wheel, is missing."""
    if source == NUDENET:
        if find_spec(NUDENET) is None:
            yield f"{key} = {NUDENET}: the package is not installed: {INSTALL}"
        elif not nudenet_file().is_file():
            yield f"{key} = {NUDENET}: {nudenet_file()} is missing: install nudenet>=3.4.2 again"
    elif not Path(source).expanduser().is_file() or Path(source).suffix != ".onnx":
        yield f"{key} = {source} is no file *.onnx that is there"


def onnx_file(source: str) -> Path:
    """Return the file of a detector: NudeNet's in its wheel, or the one named."""
    return nudenet_file() if source == NUDENET else Path(source).expanduser()


def onnx_identity(source: str) -> str:
    """Return the checksum of an ONNX file; "" if it is missing, which `onnx_problems` reports."""
    file = onnx_file(source)
    return file_digest(file) if file.is_file() else ""


def nudenet_file() -> Path:
    """Return the network that ships in NudeNet's wheel, without importing the package, which
    imports OpenCV."""
    spec = find_spec(NUDENET)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places or ["nudenet"]))) / "320n.onnx"


def without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return settings without `names`: those that change no score."""
    return {name: value for name, value in settings.items() if name not in names}
