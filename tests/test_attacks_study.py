"""The study of attacks: its commands are accepted, and its table holds what they measured."""

import csv
import json
from pathlib import Path

import pytest

from experiments.attacks import measure
from experiments.attacks.figure import COLOURS, draw_relearning
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
from mace_exp.config.composing import composed_run


@pytest.mark.parametrize("method", METHODS)
def test_every_run_is_accepted(method: str) -> None:
    given = run_arguments(method, Path("anywhere"))
    config = composed_run(*(each for each in given if not each.startswith("hydra.")))
    assert len(config.concept_list()) == 10 and config.evaluation.active() is None


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_accepted(attack: str, full: bool) -> None:
    run, settings = split(attack_arguments(Path("a/uce"), attack, full))
    chosen = composed_run("method=uce", "concepts=celebrity_10", *settings).attack.active()
    assert run == Path("a/uce") and chosen is not None
    assert chosen.name == attack.split(",")[0] and chosen.limit is None
    assert chosen.images == (8 if full else 4)


def test_the_table_has_a_row_per_point_and_side(tmp_path: Path) -> None:
    folder = tmp_path / "uce" / "attacks" / "tokens"
    folder.mkdir(parents=True)
    point = {
        "at": 10,
        "value": 0.25,
        "low": 0.1,
        "high": 0.5,
        "n": 8,
        "concepts": {"A": 0.5, "B": 0.0},
    }
    rates = {
        "attack": "tokens",
        "unit": "step",
        "settings": {"images": 4},
        "concepts": ["A", "B"],
        "curves": {"": {"control": [point], "edited": [point | {"value": 0.5}]}},
    }
    (folder / "rates.json").write_text(json.dumps(rates))
    keep_rates(tmp_path, "uce", "tokens", full=False)
    write_results(tmp_path / "results.csv", tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    assert tuple(columns) == COLUMNS
    named = ["uce", "tokens", "short", "2", "", "step", "10"]
    assert rows == [
        [*named, "edited", "0.5", "0.1", "0.5", "8", "1"],
        [*named, "control", "0.25", "0.1", "0.5", "8", "1"],
    ]
    header, _, line = (
        [cell.strip() for cell in each.strip("|").split("|")]
        for each in table(tmp_path / "results.csv")
    )
    assert header == ["attack", "variant", "at", "n", "uce", "original", "control"]
    assert line == ["tokens", "", "10 steps", "8", "50 (10 to 50)", "", "25 (10 to 50)"]


def test_the_full_budget_takes_the_short_one_s_place_and_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attack(run: Path, name: str, full: bool) -> bool:
        point = {"at": 0, "value": 0.5, "low": 0.1, "high": 0.9, "n": 80 if full else 40}
        point["concepts"] = {"A": 0.5}
        about = {"unit": "step", "settings": {"images": 8 if full else 4}, "concepts": ["A"]}
        folder = run / "attacks" / "tokens"
        folder.mkdir(parents=True, exist_ok=True)
        rates = about | {"curves": {"": {"edited": [point]}}}
        (folder / "rates.json").write_text(json.dumps(rates))
        made.append(full)
        return True

    made: list[bool] = []
    monkeypatch.setattr(measure, "is_finished", lambda run: True)
    monkeypatch.setattr(measure, "_attack", attack)
    for full in (False, True, True):
        assert measure.measured(tmp_path, "uce", "tokens", full=full) == []
    assert made == [False, True]
    write_results(tmp_path / "results.csv", tmp_path)
    [row] = csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8", newline=""))
    assert (row["budget"], row["n"]) == ("full", "80")


def test_the_figure_has_a_panel_per_variant_and_a_line_per_method(tmp_path: Path) -> None:
    rows = [
        {
            **{"attack": "relearning", "variant": variant, "method": method, "side": side},
            **{"at": str(at), "recognised": "0.5", "low": "0.2", "high": "0.8"},
        }
        for variant in ("lora, its pictures", "lora, other pictures")
        for method in ("uce", "mace-1")
        for side in ("edited", "original", "control")
        for at in (0, 20)
    ]
    pytest.importorskip("matplotlib")
    draw_relearning(rows, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn.count("#0072b2") > drawn.count("#009e73") == 0
    draw_relearning([], tmp_path / "b.svg")
    assert not (tmp_path / "b.svg").exists()
    assert set(COLOURS) == set(METHODS)
