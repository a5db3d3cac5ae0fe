"""What the command line says of itself: version, help, completion; and the package as a wheel."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mace_exp.utils.conf import CONF, summary

ROOT = Path(__file__).parents[1]


def test_version_names_the_package_and_hydra(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("--version")
    assert re.fullmatch(r"mace_exp \d+\.\d+\.\d+, Hydra 1\.3\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("asked", [["--help"], ["lora.rank=4", "-h"]])
def test_help_names_every_group_and_option_the_default_first(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], *, asked: list[str]
) -> None:
    command(*asked)
    text = capsys.readouterr().out
    assert text.count("python -m mace_exp ") == 4  # the usage and three examples
    assert all(len(line) <= 100 for line in text.splitlines())
    rows = " ".join(re.sub(r"\n  (?=\S)", "\n| ", text).split())
    for group in [path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"]:
        files = {file.relative_to(group).with_suffix("") for file in group.rglob("*.yaml")}
        (row,) = re.findall(rf"\| {group.name} ([^|]*?): ([\w/]+(?:, [\w/]+)*)", rows)
        assert row[0], f"what is {group.name}? Say it in conf/config.yaml"
        assert set(row[1].split(", ")) == {file.as_posix() for file in files}
        default = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
        chosen = next(e[group.name] for e in default if isinstance(e, dict) and group.name in e)
        assert row[1].startswith(chosen or "")
    for launcher in (CONF / "hydra" / "launcher").glob("*.yaml"):
        assert launcher.stem in rows.partition("hydra/launcher")[2]


def test_help_of_a_group_says_what_its_options_are(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command("--help", "masks", "sweep")
    text = " ".join(capsys.readouterr().out.split())
    for option in ("masks/none", "sweep/seeds"):
        assert f"{Path(option).name} {summary(CONF / f'{option}.yaml')}" in text
    assert "lora" not in text.split("sweep:")[0]


def test_help_and_version_come_without_hydra(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mace_exp.__main__ import main\nmain()\n"
        "assert not {'hydra', 'omegaconf', 'yaml', 'torch', 'numpy'} & set(sys.modules)"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0 and done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a user gets it, unpacked."""
    if not (ROOT / "README.md").exists():
        pytest.skip("no README.md yet: the wheel needs it")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_conf(wheel: Path) -> None:
    packed = {p.relative_to(wheel / "mace_exp" / "conf") for p in wheel.rglob("conf/**/*.yaml")}
    assert packed == {p.relative_to(CONF) for p in CONF.rglob("*.yaml")}
    assert "mace-exp = mace_exp.__main__:main" in next(wheel.rglob("entry_points.txt")).read_text()


def test_the_wheel_works_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mace_exp", "concepts=celebrity_5", "--cfg", "job"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["concepts"]["names"][0] == "Adam Driver"


@pytest.mark.skipif(shutil.which("bash") is None, reason="completion is tried in bash's format")
def test_completion_knows_groups_and_options(tmp_path: Path) -> None:
    code = "import sys\nsys.argv[0] = 'mace-exp'\nfrom mace_exp.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "-sc", "query=bash"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "COMP_LINE": "mace-exp masks=", "COMP_POINT": "15"},
    )
    assert "masks=attention" in done.stdout, done.stderr
