"""The saved view of a project in Weights & Biases: its specification, made without a server."""

import json
import logging
from typing import Any

import pytest

from mace_exp.workspace import CURVES, MEASURES, MEDIA, SETTINGS, main, workspace
from tests.composing import composed

pytest.importorskip("wandb_workspaces", reason="the extra `workspace` is not installed")


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """The view as it would be sent."""
    model = workspace("erasure", "somebody")._to_model()
    assert (model.project, model.entity) == ("erasure", "somebody")
    return json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))


def panels(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    every = [panel for section in sections for panel in section["panels"]]
    return [panel["config"] for panel in every if panel["viewType"] == kind]


def test_the_trade_off_is_erased_against_preserved(spec: dict[str, Any]) -> None:
    (pareto,) = panels(spec, "Scatter Plot")
    assert pareto["xAxis"] == "summary:erased/accuracy/value"
    assert pareto["yAxis"] == "summary:preserved/accuracy/value"


def test_parallel_coordinates_lead_from_settings_to_measures(spec: dict[str, Any]) -> None:
    (parallel,) = panels(spec, "Parallel Coordinates Plot")
    accessors = [column["accessor"] for column in parallel["columns"]]
    assert [each.split(":")[0] for each in accessors] == ["config"] * len(SETTINGS) + [
        "summary"
    ] * len(MEASURES)
    assert [each.split(":")[1] for each in accessors[len(SETTINGS) :]] == list(MEASURES)
    turned = [column["accessor"] for column in parallel["columns"] if column.get("inverted")]
    assert turned == ["summary:erased/accuracy/value"], "up is good on every axis"


def test_every_setting_of_the_view_is_one_of_a_run() -> None:
    config = composed()
    for key in SETTINGS:
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        assert isinstance(value, int | float), key


def test_pictures_curves_and_differences_are_there(spec: dict[str, Any]) -> None:
    assert [each["mediaKeys"] for each in panels(spec, "Media Browser")] == [[m] for m in MEDIA]
    curves = panels(spec, "Run History Line Plot")
    assert [each["metrics"] for each in curves] == [[f"lora/{key}/median"] for key in CURVES]
    assert {each["xAxis"] for each in curves} == {"lora/step"}
    assert len(panels(spec, "Run Comparer")) == 1


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        ([], "k", "--entity is not set: name the user or team"),
        (["--entity", "somebody"], "", "WANDB_API_KEY is not set"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str],
    key: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", key)
    with caplog.at_level(logging.ERROR):
        assert main(arguments) == 2
    assert message in caplog.text


def test_a_refusal_of_the_service_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wandb_workspaces.workspaces import Workspace

    def refuse(self: Workspace) -> None:
        raise RuntimeError("no such project")

    monkeypatch.setattr(Workspace, "save", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert main(["--entity", "somebody"]) == 2
    assert "no such project" in caplog.text
