"""The study of attacks: its commands are accepted, and its table holds what they measured."""

import csv
import json
from pathlib import Path

import pytest

from experiments.attacks.measure import (
    ATTACKS,
    COLUMNS,
    METHODS,
    attack_arguments,
    keep_rates,
    run_arguments,
    table,
    write_results,
)
from mace_exp.attack import split
from mace_exp.config import composed_run


@pytest.mark.parametrize("method", METHODS)
def test_every_run_is_accepted(method: str) -> None:
    given = run_arguments(method, Path("anywhere"))
    config = composed_run(*(each for each in given if not each.startswith("hydra.")))
    assert len(config.concept_list()) == 10 and config.evaluation.active() is None


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_accepted(attack: str, small: bool) -> None:
    run, settings = split(attack_arguments(Path("a/uce"), attack, small))
    chosen = composed_run("method=uce", "concepts=celebrity_10", *settings).attack.active()
    assert run == Path("a/uce") and chosen is not None
    assert chosen.name == attack.split(",")[0] and chosen.limit == (2 if small else None)


def test_the_table_has_a_row_per_point_and_side(tmp_path: Path) -> None:
    folder = tmp_path / "uce" / "attacks" / "tokens"
    folder.mkdir(parents=True)
    point = {"at": 10, "value": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    rates = {
        "attack": "tokens",
        "unit": "step",
        "settings": {"limit": 2},
        "concepts": ["A", "B"],
        "curves": {"": {"control": [point], "edited": [point | {"value": 0.5}]}},
    }
    (folder / "rates.json").write_text(json.dumps(rates))
    keep_rates(tmp_path, "uce", "tokens")
    write_results(tmp_path / "results.csv", tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    named = ["uce", "tokens", "small", "2", "", "step", "10"]
    assert rows == [
        [*named, "edited", "0.5", "0.1", "0.5", "8"],
        [*named, "control", "0.25", "0.1", "0.5", "8"],
    ]
    *_, line = table(tmp_path / "results.csv")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["tokens", "", "uce", "10 step", "50 (10 to 50)", "", "25 (10 to 50)", "8"]
