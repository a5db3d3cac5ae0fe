"""Flags of the command line: anywhere among the settings, and what is none is told."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mace_exp.check.__main__ import main as check
from mace_exp.cli.hydra_flags import flags_first

FIRST = {
    "experiment=own --config-dir {mine} seed=1": "--config-dir {mine} experiment=own seed=1",
    "a=1 -m -cd={mine} b=2": "-m --config-dir {mine} a=1 b=2",
    "a=1 --cfg job --package lora b=2": "--cfg job --package lora a=1 b=2",
    "--info a=1": "--info all a=1",
    "a=1 --info defaults-tree": "--info defaults-tree a=1",
    "~sweep a=--b": "~sweep a=--b",
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of options, as its user names it."""
    file = tmp_path / "mine" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nlora: {rank: 3}\n")
    return tmp_path / "mine"


@pytest.mark.parametrize("given", FIRST)
def test_flags_may_stand_anywhere(mine: Path, given: str) -> None:
    found = flags_first([each.format(mine=mine) for each in given.split()])
    assert found == FIRST[given].format(mine=mine).split()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--experiment own", "--experiment: settings .* without dashes: give experiment=own"),
        ("--lora.rank=4", "without dashes: give lora.rank=4"),
        ("--cache-dir x", "give cache_dir=x"),
        ("--seed lora.rank=3", "give seed=[.]{3}"),
        ("--config_dir mine", "no such flag. Did you mean --config-dir"),
        ("--multi seed=1,2", "no such flag. Did you mean --multirun"),
        ("--verbose", "no such flag.* Flags: --help, .*; settings are key=value"),
        ("--config-name own", "--config-name=own: .* give --config-dir DIR experiment=own"),
        ("-cp mine", "put the file into mine/experiment/, and give --config-dir mine exp"),
        ("--experimental-rerun x.pickle", "a run goes on by resume=RUN"),
        ("--config-dir", "--config-dir  is not a folder"),
        ("--config-dir nowhere", "--config-dir nowhere is not a folder: give the folder in which"),
        ("--config-dir mine/experiment/own.yaml", "own.yaml is a file: give the folder"),
        ("-cd mine/experiment", "is the folder of a group: give --config-dir mine$"),
        ("--config-dir=flat", "flat has no folder named .*: put own.yaml into flat/experiment"),
        ("--config-dir mine experiment=dots", r"dots.yaml: lora.rank: .* write lora: {rank: ...}$"),
        ("--config-dir mine experiment=twice", "twice.yaml: .* write '- override /masks: none'"),
        ("--config-dir mine experiment=other", "rename .*other.yml to other.yaml"),
        ("--config-dir hides", "mini_style.yaml has the name of an option of this project"),
        ("masks@masks=none", "masks is a group of a run: give masks=none"),
        ("masks=[none,whole]", "masks takes one option: -m masks=none,whole runs each"),
        ("kept=[cat]", r"kept takes one option: kept.people='\[...\]'"),
        ("experiment=mine/own.yaml", "experiment=mine/own.yaml: .* as DIR/experiment/own.yaml"),
        ("experiment=null", "no such option. Leave experiment out for none. .*published/artist"),
        ("hydra/job_logging=null", "hydra/job_logging=null: there is no such option"),
        ("method=uce,rece", "commas separate the values of a sweep: add --multirun"),
        ("model.source=a,b", "sweep: quote one value that has a comma, .*, or add --multirun"),
    ],
)
def test_what_is_no_flag_or_option_is_told(
    refusal: Callable[..., str], mine: Path, given: str, said: str
) -> None:
    head = "# @package _global_\n"
    files = {
        "flat/own.yaml": "lora: {rank: 3}\n",
        "mine/experiment/dots.yaml": f"{head}lora.rank: 3\n",
        "mine/experiment/twice.yaml": f"{head}defaults:\n  - /masks: none\n",
        "mine/experiment/other.yml": f"{head}lora: {{rank: 3}}\n",
        "hides/experiment/mini_style.yaml": f"{head}lora: {{rank: 3}}\n",
    }
    for name, text in files.items():
        (mine.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (mine.parent / name).write_text(text)
    assert re.search(said, told := refusal(*given.split())), told


def test_the_check_takes_and_tells_the_same(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine.parent)
    assert check(["experiment=own", "--config-dir", "mine", "--files", "seed=1"]) == 0
    assert check(["--experiment", "own"]) == 2
    assert "give experiment=own" in capsys.readouterr().err
    assert check(["--config-dir", "nowhere", "experiment=own"]) == 2
    assert "--config-dir nowhere is not a folder" in capsys.readouterr().err
