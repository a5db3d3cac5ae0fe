"""The stage `attacks`: rates, keys, files, refusals, and the command for finished runs."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from mace_exp import pipeline as commands
from mace_exp.attack import run_settings, split
from mace_exp.attacks.base import CONTROL, EDITED, ORIGINAL, SIDES, Attempt, Shot
from mace_exp.attacks.rates import JudgedPicture, curves
from mace_exp.attacks.rates import judged as judged_pictures
from mace_exp.concepts.concept import Kind
from mace_exp.config.composing import composed_run
from mace_exp.evaluation.judges.base import SUBJECT, Judge, JudgeError
from mace_exp.evaluation.judging import RunJudge
from mace_exp.models.model import Model
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.stale import recorded_keys, remove_stale
from mace_exp.stage_plan import plan_of
from mace_exp.utils.files import save_png
from tests.attacking import PEOPLE, TINY_ATTACK, RandomFacesConfig, attack_recipe
from tests.composing import composed
from tests.random_evaluation import random_pictures
from tests.tiny import tiny_pipeline
from tests.whole_run import rows

RELEARN = (
    *("attack=relearning", *TINY_ATTACK, "attack.steps=[0,1]", "attack.batch_size=1"),
    *("attack.train=[lora]", "sampling.steps=1"),
)
OTHER_EDIT = ("preservation.prior_weight=1",)


def judged(side: str, concept: str, at: float, *, rank: float, p: float = 0.9) -> JudgedPicture:
    return JudgedPicture(side, concept, Shot("", at, "", 0), "", "", p, rank)


def test_rates_count_first_guesses_that_are_sure_enough() -> None:
    seen = [
        judged(EDITED, "A", 0, rank=1),
        judged(EDITED, "A", 0, rank=2),
        judged(EDITED, "B", 0, rank=1, p=0.4),
        judged(EDITED, "C", 0, rank=float("nan")),
        judged(ORIGINAL, "A", 0, rank=1),
        judged(EDITED, "A", 5, rank=1),
    ]
    found = curves(seen, 0.5)[""]
    first, later = found[EDITED]
    assert (first["at"], first["value"], first["n"]) == (0, pytest.approx(1 / 3), 3)
    assert first["concepts"] == {"A": 0.5, "B": 0.0}
    assert 0 <= first["low"] < first["value"] < first["high"] <= 1
    assert (later["at"], later["value"], later["n"]) == (5, 1.0, 1)
    assert curves(seen, 0)[""][EDITED][0]["value"] == pytest.approx(2 / 3)
    assert set(found) == {EDITED, ORIGINAL}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_an_attack_writes_its_folder_and_is_not_made_again(pipeline: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    recipe = attack_recipe(tmp_path / "a", *RELEARN, pipeline=pipeline, cache=cache)
    recipe.check()
    found = recipe.attacks.value
    folder = tmp_path / "a" / "attacks" / "relearning"
    written = json.loads((folder / "rates.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert set(written["settings"]["show"]) <= {"concept", "others"}, "as they are given"
    with (folder / "pictures.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 2 * 2 * 2 * 2  # sides, people, variants, points, pictures
    assert all((folder / row["file"]).is_file() for row in table)
    prompts = {side: {row["prompt"] for row in table if row["side"] == side} for side in SIDES}
    assert all("Zorvan Quimbel" in prompt for prompt in prompts[CONTROL])
    assert prompts[EDITED] == prompts[ORIGINAL]
    assert not changed_files(recipe.context.folder, ["attacks/relearning"])
    assert set(recorded_keys(recipe.context.folder)) == {"edit", "attacks/relearning"}
    other = attack_recipe(tmp_path / "b", *RELEARN, *OTHER_EDIT, pipeline=pipeline, cache=cache)
    assert "4 of 6 attacks" in plan_of(other).reused(), "said before anything is made"
    again = other.attacks.value
    assert other.context.cache.reused["attacks"] == 4, "what does not depend on the edit"
    assert other.context.cache.made["attacks"] == 2
    for variant, sides in found["curves"].items():
        assert sides[ORIGINAL] == again["curves"][variant][ORIGINAL]


class Objects:
    """Sees the person less than an object, which CLIP could as well."""

    classes = {SUBJECT: ("Amy Adams", "Adam Driver", "a ship")}
    asked: ClassVar[list[int]] = []

    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.asked.append(len(images))
        return {SUBJECT: np.tile([0.3, 0.1, 0.6], (len(images), 1))}


class ObjectsConfig(RandomFacesConfig):
    within_kind = True

    def load(self) -> Any:
        return Objects()


def test_pictures_of_attacks_are_judged_among_classes_of_the_concept_s_kind() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    attempt = Attempt([Shot("", 0, "a photo", seed) for seed in (0, 1)], images)
    subjects = {"Amy Adams": Kind.person, "Adam Driver": Kind.person, "a ship": Kind.object}
    found = judged_pictures(
        *(attempt, (EDITED, "Amy Adams"), ["0", "1"], cast(Judge, Objects())),
        judging=RunJudge(ObjectsConfig(), subjects),
    )
    assert [(each.rank, each.probability) for each in found] == [(1, pytest.approx(0.75))] * 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_judge_that_is_asked_once_sees_all_attempts_at_once(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def refuse(*_: Any) -> Any:
        raise JudgeError("it fell asleep")

    one = ("attack.limit=1", "attack.show=[concept]", "attack.images=1", "attack.pictures=1")
    recipe = attack_recipe(tmp_path, *RELEARN, *one, pipeline=pipeline, cache=tmp_path / "cache")
    config = recipe.attempts.plan.judging.config
    monkeypatch.setattr(type(config), "batch", None)
    monkeypatch.setattr(type(config), "load", lambda _: Objects())
    Objects.asked.clear()
    if fails:
        monkeypatch.setattr(Objects, "probabilities", refuse)
        with pytest.raises(JudgeError, match="attack=relearning was made, and judge=.*asleep"):
            _ = recipe.attacks.value
    else:
        _ = recipe.attacks.value
        assert Objects.asked == [6, 2, 2, 2], "three sides of two points"


def test_the_command_attacks_the_edit_of_a_folder_and_only_that(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("attack.limit=1", "attack.show=[concept]", "attack.images=1", "attack.pictures=1")
    folder, cache = tmp_path / "run", tmp_path / "cache"
    recipe = attack_recipe(folder, *RELEARN, *one, pipeline=pipeline, cache=cache)
    monkeypatch.setattr("mace_exp.pipeline.load_model", lambda *_: Model(pipeline))
    with pytest.raises(ValueError, match="holds no edit of these settings"):
        commands.attack(recipe.config, folder)
    edit = recipe.edit.value
    kept = {file: file.read_bytes() for file in folder.iterdir() if file.name in KEPT}
    assert edit.weights and kept
    found = commands.attack(recipe.config, folder)
    assert set(found["curves"]["lora, its pictures"]) == set(SIDES)
    assert all(file.read_bytes() == content for file, content in kept.items())
    assert 'id="attacks"' in (folder / "report.html").read_text(encoding="utf-8")
    [stage] = [row for row in rows(folder, "stage") if row["stage"] == "attacks"]
    assert not stage["reused"]
    losses = rows(folder, "attack")
    assert {(row["side"], row["attack/step"]) for row in losses} == {(side, 1) for side in SIDES}


KEPT = ("edit.safetensors", "erased.json")


def test_keys_of_attempts(pipeline: Any, tmp_path: Path) -> None:
    def parts(*overrides: str) -> dict[str, str]:
        given = (*RELEARN, *overrides)
        cache = tmp_path / "cache"
        return dict(attack_recipe(tmp_path, *given, pipeline=pipeline, cache=cache).attacks.parts)

    def changed(*overrides: str) -> set[str]:
        other = parts(*overrides)
        return {name.split("/")[0] for name in usual if other.get(name, usual[name]) != usual[name]}

    usual = parts()
    assert set(usual) == {f"{s}/{c}" for s in SIDES for c in ("adam-driver", "amy-adams")}
    assert changed(*OTHER_EDIT) == {EDITED}
    assert changed("attack.unknown_name=Belzo Ruvik") == {CONTROL}
    for every in ("attack.rank=2", "attack.pictures=3", "attack.images=3"):
        assert changed(every) == set(SIDES), every
    assert changed("attack.limit=1", "sampling.batch_size=3") == set()
    turned = parts("concepts.names=[Amy Adams,Adam Driver]")
    assert all(turned[name] == usual[name] for name in usual if not name.startswith(EDITED))


def test_attacks_go_with_the_edit_that_they_were_made_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    place = folder.attack("tokens")
    place.mkdir(parents=True)
    (place / "rates.json").write_text("{}")
    (tmp_path / "keys.json").write_text(json.dumps({"edit": "a", "attacks/tokens": "b"}))
    remove_stale(folder, {"edit": "a"}, ["cfr", "attacks"], edit_steps=["cfr"])
    assert place.is_dir()
    remove_stale(folder, {"edit": "c"}, ["attacks", "report"], edit_steps=["cfr"])
    assert not place.exists()
    assert recorded_keys(folder) == {"edit": "a"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("attack.concepts=[Bill Murray]", "attack.concepts names 'Bill Murray', which is not eras"),
        ("attack.concepts=[]", "attack.concepts is empty"),
        ("attack.unknown_name=amy adams", "'amy adams' is a name that the model knows"),
        ("attack.unknown_name=cat", "is a name that the model knows"),
        ("attack.unknown_name='!!!'", "attack.unknown_name: the name '.*' has no letter"),
        ("attack.steps=[10,5]", "attack.steps = .10, 5.: give at least one number, rising"),
        ("attack.train=[]", "attack.train = ..: give at least one"),
        ("judge=none", "attack = relearning with judge = none"),
        ("attack.path=nowhere", "attack.path = nowhere"),
        ("attack.stpes=[1]", "stpes"),
        ("attack=none stages=[attacks]", "stages names 'attacks' with attack = none"),
    ],
)
def test_what_cannot_be_attacked_is_refused(given: str, message: str) -> None:
    chosen = given.split() if given.startswith("attack=") else ["attack=relearning", given]
    with pytest.raises(ValueError, match=message):
        composed("method=uce", *PEOPLE, *chosen)


def test_a_truncated_picture_is_named_before_anything_is_erased(tmp_path: Path) -> None:
    folder = tmp_path / "Adam Driver"
    folder.mkdir()
    for name in ("a", "b"):
        save_png(folder / f"{name}.png", random_pictures(1)[0][0])
    given = ("attack=completion", f"attack.path={tmp_path}", "attack.pictures=2", PEOPLE[0])
    names = "concepts.names=[Adam Driver]"
    composed_run(*given, names)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="attack.path = .*b.png"):
        composed_run(*given, names)


def test_an_attack_is_a_stage_between_metrics_and_report() -> None:
    stages = composed("method=uce", *PEOPLE, "attack=inversion").chosen_stages()
    assert stages[-3:] == ["metrics", "attacks", "report"]
    assert "attacks" not in composed("method=uce", *PEOPLE).chosen_stages()


def test_a_model_without_a_unet_is_refused_by_name(tmp_path: Path) -> None:
    other = tiny_pipeline()
    recipe = attack_recipe(tmp_path, *RELEARN, pipeline=other, cache=tmp_path / "cache")
    attempts = recipe.attempts
    other.unet = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="attack = relearning works on .* not on StableDiffusionP"):
        attempts.check()


def test_the_command_takes_a_run_and_an_attack(tmp_path: Path) -> None:
    run, settings = split(["run=a/b", "attack=tokens", "attack.limit=1"])
    assert (run, settings) == (Path("a/b"), ["attack=tokens", "attack.limit=1"])
    for wrong, message in (
        (["attack=tokens"], "name one run"),
        (["run=a"], "name an attack"),
        (["run=a", "attack=none"], "attack=none is no attack"),
        (["run=a", "attack=tokens", "lora.rank=4"], "lora.rank=4: the run's own settings hold"),
    ):
        with pytest.raises(ValueError, match=message):
            split(wrong)
    with pytest.raises(ValueError, match="run = .* is no run folder"):
        run_settings(tmp_path)
    (tmp_path / "multirun.yaml").touch()
    with pytest.raises(ValueError, match="run = .* is the folder of a sweep"):
        run_settings(tmp_path)
    (tmp_path / "multirun.yaml").unlink()
    (tmp_path / "config.yaml").write_text(
        "arguments: [method=uce, 'concepts=custom', attack=inversion, 'attack.steps=[1]', "
        "'stages=[attacks]']\n"
    )
    assert run_settings(tmp_path) == ["method=uce", "concepts=custom"]
