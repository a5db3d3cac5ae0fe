"""Files of the same options are composed once in a process, and nothing of a copy goes back."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from mace_exp.config import composed_once
from mace_exp.config.composing import composed_run
from mace_exp.config.hydra_shortcuts import plain_hydra
from mace_exp.config.options import VARIANTS
from mace_exp.runs.schema import NoTracking


@dataclass
class Named:
    steps: int = 1


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_once, "_listed", {})
    monkeypatch.setattr(composed_once, "_composed", {})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What Hydra read to merge it."""
    found, load = list[str](), ConfigLoaderImpl._load_single_config

    def loaded(loader: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
        found.append(default.config_path)
        return load(loader, default, repo)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_single_config", loaded)
    yield found


def test_other_values_of_the_same_options_read_no_file_again(read: list[str]) -> None:
    chosen = ("masks=whole", "concepts=celebrity_5")
    given = ((*chosen, "lora.rank=2"), (*chosen, "seed=7"), ("seed=1", *chosen, "~lora.alpha"))
    quick = [composed_run(*each) for each in given[:2]]
    assert read.count("config") == 1
    with pytest.raises(ValueError, match=r"lora.alpha"):
        composed_run(*given[2])
    assert read.count("config") == 1
    with plain_hydra():
        assert [composed_run(*each) for each in given[:2]] == quick
    composed_run("masks=none")
    assert read.count("masks/none") == 1, "another option"


def test_what_is_changed_in_a_configuration_is_changed_in_no_other() -> None:
    first = composed_run("lora.rank=3")
    first.kept.people.clear()
    first.lora.targets.append("to_q")
    again = composed_run("lora.rank=3")
    assert again.kept.people and "to_q" not in again.lora.targets


def test_a_file_of_the_user_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "lora" / "mine.yaml"
    file.parent.mkdir()

    def rank() -> int:
        return composed_run("lora=mine", config_dir=tmp_path).lora.rank

    for number in (2, 3):
        file.write_text(f"defaults: [mini]\nrank: {number}\n")
        os.utime(file, ns=(number, number))  # writes that follow at once may have one time
        assert rank() == number
    file.write_text("defaults: [mini]\nrank: 4\nhydra: {run: {dir: there}}\n")
    with pytest.raises(ValueError, match="hydra"):
        rank()
    other = tmp_path / "other"
    (other / "lora").mkdir(parents=True)
    (other / "lora" / "mine.yaml").write_text("defaults: [mini]\nrank: 5\n")
    assert composed_run("lora=mine", config_dir=other).lora.rank == 5


def test_another_schema_of_the_same_name_is_another_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(NoTracking):
        pass

    assert type(composed_run("tracking=none").tracking) is NoTracking
    monkeypatch.setitem(VARIANTS, "tracking", {**VARIANTS["tracking"], "none": Silent})
    assert type(composed_run("tracking=none").tracking) is Silent
    monkeypatch.undo()
    assert type(composed_run("tracking=none").tracking) is NoTracking


def test_no_more_than_some_sets_of_options_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_once, "MOST", 2)
    for masks in ("none", "whole", "attention", "none"):
        composed_run(f"masks={masks}")
    assert len(composed_once._composed) == len(composed_once._listed) == 2


def test_what_is_kept_remembers_nothing_that_was_resolved() -> None:
    """Such as the time, which would name the folder of the next run in this process."""
    composed_run("masks=whole")
    [kept] = composed_once._composed.values()
    assert not kept()._metadata.resolver_cache


def test_copies_are_apart_also_of_a_schema_inside_a_function() -> None:
    """Which no pickle can name."""

    @dataclass
    class Local:
        steps: int = 1

    for schema in (Local, Named):
        copies = composed_once._copies(OmegaConf.structured(schema))
        first, second = copies(), copies()
        first.steps = 7
        assert OmegaConf.get_type(second) is schema and second.steps == copies().steps == 1
