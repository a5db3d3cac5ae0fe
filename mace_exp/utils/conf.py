"""The folder of configuration files, and their descriptions, without Hydra."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
"""The configuration files: inside the package in a wheel, beside it in the repository."""
_NOT_SAID = ("# @package", "# python -m")


def summary(file: Path) -> str:
    """Return the first comment of a file as one line, without Hydra directives and commands."""
    said = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        if not line.startswith(_NOT_SAID):
            said.append(line.removeprefix("# "))
    return " ".join(said)
