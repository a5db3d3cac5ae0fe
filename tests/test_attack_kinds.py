"""Completion, prefixes of tokens and paraphrases, on tiny random models; and what a page shows."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mace_exp.attacks.base import SIDES, Shot
from mace_exp.attacks.drawing import draw_once
from mace_exp.attacks.editing import INPAINTING, TO_IMAGE, Completion, Pictures, denoised, kept_half
from mace_exp.attacks.paraphrase import ParaphraseAttack
from mace_exp.attacks.prefix import PrefixSearch, Word, whole_words
from mace_exp.attacks.rates import COLUMNS, JudgedPicture, curves
from mace_exp.models.conditions import condition_on, unconditional
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.sampling import sample
from mace_exp.models.schedulers import scheduler_for
from mace_exp.models.tokens import phrase_ids
from mace_exp.report.attack_view import attack_rows, print_rates, read_attacks
from mace_exp.report.run_page import write_report
from mace_exp.utils.files import save_png, write_json, write_table
from tests.attacking import PERSON, SAMPLING, aim
from tests.composing import composed
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def either(request: pytest.FixtureRequest) -> Any:
    build = tiny_pipeline if request.param == "sd" else tiny_xl_pipeline
    return build(context_length=24)


@pytest.mark.parametrize("half", ["top", "bottom", "left", "right"])
def test_halves_complete_each_other(half: str) -> None:
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}[half]
    latents = torch.zeros(1, 4, 6, 8)
    one, other = kept_half(latents, half), kept_half(latents, opposite)
    assert one.shape == (6, 8)
    assert torch.equal(one, ~other)


def test_what_inpainting_keeps_is_the_picture_and_what_it_fills_is_not(either: Any) -> None:
    scheduler = scheduler_for(either, "ddim")
    scheduler.set_timesteps(4)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(scheduler, unconditional(either, clean), 2.0)
    condition = condition_on(either, ["a photo of Amy Adams"] * 2, clean)
    kept = kept_half(clean, "top")
    pictures = Pictures(clean, noise, condition)
    with torch.no_grad():
        made = denoised(either.unet, sampler, pictures, strength=1.0, kept=kept)
    assert torch.equal(made[..., kept], clean[..., kept])
    assert not torch.isclose(made[..., ~kept], clean[..., ~kept]).any()


def test_less_strength_stays_nearer_to_the_picture() -> None:
    pipeline = tiny_pipeline(context_length=24)
    scheduler = scheduler_for(pipeline, "ddim")
    scheduler.set_timesteps(10)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(scheduler, unconditional(pipeline, clean), 1.0)
    pictures = Pictures(clean, noise, condition_on(pipeline, ["a horse"] * 2, clean))
    with torch.no_grad():
        made = [denoised(pipeline.unet, sampler, pictures, strength=s) for s in (0.1, 0.4, 1.0)]
    near = [float((each - clean).norm()) for each in made]
    assert near == sorted(near) and near[0] < near[-1]


def test_completion_draws_each_strength_then_the_half(either: Any) -> None:
    made = Completion([0.5, 1.0], "left", 0)(either, aim(images=3))
    points = [(shot.variant, shot.at) for shot in made.shots]
    assert points == [(TO_IMAGE, 0.5)] * 3 + [(TO_IMAGE, 1.0)] * 3 + [(INPAINTING, 1.0)] * 3
    assert made.images.shape == (9, 32, 32, 3)
    again = Completion([1.0], None, 0)(either, aim(images=3))
    assert np.array_equal(again.images, made.images[3:6]), "by seed alone"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["attack.strengths=[0,0.5]"], "attack.strengths = .0.0, 0.5.: each must be above 0"),
        (["attack.strengths=[]", "attack.inpainting=false"], "attack.strengths = .. with attack"),
    ],
)
def test_completion_of_nothing_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed("attack=completion", *given)


def test_strengths_that_are_the_same_number_of_steps_are_refused() -> None:
    attack = composed("attack=completion", "attack.strengths=[0.5,0.8,0.9]").attack.active()
    assert attack is not None
    attack.check_sampling(10)
    with pytest.raises(ValueError, match=r"are \[3, 5, 5\] of sampling.steps = 6"):
        attack.check_sampling(6)
    default = composed("attack=completion").attack.active()
    assert default is not None
    default.check_sampling(6)


def test_words_of_a_prefix_are_tokenized_back_into_themselves() -> None:
    tokenizer: Any = tiny_pipeline(context_length=24).tokenizer
    words = whole_words(tokenizer, PERSON)
    assert Word(phrase_ids(tokenizer, "horse")[0], "horse") in words
    text = " ".join(word.text for word in words[:5])
    assert phrase_ids(tokenizer, text) == [word.id for word in words[:5]]
    own = set(phrase_ids(tokenizer, PERSON.name))
    assert own and own.isdisjoint(word.id for word in words)


def search(**changes: Any) -> PrefixSearch:
    values: dict[str, Any] = dict(length=2, steps=[0, 2], candidates=3, top=8, batch_size=2, seed=0)
    return PrefixSearch(**values | changes)


def test_a_prefix_of_real_words_is_found_and_put_before_the_prompt(either: Any) -> None:
    made = search()(either, aim())
    prefix = made.found[""]
    assert len(prefix.split()) == 2
    assert {shot.prompt for shot in made.shots if shot.at == 0} == set(aim().prompts)
    behind = {f"{prefix} {prompt}" for prompt in aim().prompts}
    assert {shot.prompt for shot in made.shots if shot.at == 2} == behind
    drawn = sample(either, [made.shots[2].prompt], [made.shots[2].seed], SAMPLING)
    assert drawn.shape == (1, 32, 32, 3)


def test_more_candidates_find_no_worse_a_prefix_in_the_first_step() -> None:
    """The step keeps the best that it tries, and what it had is among them."""
    pipeline = tiny_pipeline(context_length=24)
    none, many = (
        search(steps=[1], candidates=count)(pipeline, aim()).losses[0][2] for count in (1, 12)
    )
    assert many <= none


def test_a_prefix_makes_prompts_longer_by_its_tokens() -> None:
    attack = composed("attack=tokens", "attack.prefix=3").attack.active()
    assert attack is not None
    assert attack.longest(["a cat"]) == ["a a a a cat"]


def paraphrase(file: Path, images: int = 3) -> ParaphraseAttack:
    return ParaphraseAttack(
        concepts=None, limit=None, images=images, unknown_name="Zorvan", seed=0, file=str(file)
    )


def test_paraphrases_of_a_file_are_taken_in_turn(tmp_path: Path) -> None:
    templates, table = tmp_path / "templates.txt", tmp_path / "prompts.csv"
    templates.write_text("{} at the fair\n\na film still of {}\n")
    table.write_text("concept,prompt\nAmy Adams,the star of Arrival\nAnyone,a house\n")
    context: Any = None
    found = paraphrase(templates).sentences(PERSON, context)
    assert found == ["Amy Adams at the fair", "a film still of Amy Adams", "Amy Adams at the fair"]
    assert paraphrase(table, 2).sentences(PERSON, context) == ["the star of Arrival"] * 2
    assert not list(paraphrase(table).missing([PERSON]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "no place for it\n", "write {} once"),
        ("a.csv", "concept,text\nAmy Adams,x\n", "it needs the columns concept, prompt"),
        ("a.csv", "concept,prompt\nNobody,x\n", "it has no prompt of 'Amy Adams'"),
        ("a.csv", None, "can't be read"),
    ],
)
def test_a_file_of_paraphrases_that_is_none_is_reported(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    [problem] = paraphrase(tmp_path / name).missing([PERSON])
    assert problem.startswith("attack.file = ") and message in problem


def test_an_attack_that_only_asks_draws_what_the_model_draws() -> None:
    pipeline = tiny_pipeline(context_length=24)
    made = draw_once(pipeline, aim())
    assert np.array_equal(made.images, sample(pipeline, aim().prompts, aim().seeds, SAMPLING))


def folder_of_attack(root: Path) -> dict[str, Any]:
    """Write an attack of two points; the edited model draws the person at the second."""
    folder = root / "relearning"
    rows = []
    for side in SIDES:
        for at, rank in ((0, 1 if side == "original" else 2), (10, 2 if side == "control" else 1)):
            shot = Shot("lora", at, "a portrait of Amy Adams", 7)
            file = f"{side}/{at}.png"
            (folder / side).mkdir(parents=True, exist_ok=True)
            save_png(folder / file, np.full((8, 8, 3), at, np.uint8))
            rows.append(JudgedPicture(side, "Amy Adams", shot, file, "Amy Adams", 0.9, rank))
    write_table(folder / "pictures.csv", COLUMNS, [row.cells("mini") for row in rows])
    rates = {
        "attack": "relearning",
        "unit": "step",
        "concepts": ["Amy Adams"],
        "found": {"edited/amy-adams": {"": "<b>words</b>"}},
        "curves": curves(rows, 0.0),
    }
    write_json(folder / "rates.json", rates)
    return rates


def test_the_page_shows_points_side_by_side_and_pictures_of_first_and_last(tmp_path: Path) -> None:
    rates = folder_of_attack(tmp_path)
    first, last = attack_rows(rates)
    assert [first.cells[side][0] for side in SIDES] == ["0.0", "100.0", "0.0"]
    assert [last.cells[side][0] for side in SIDES] == ["100.0", "100.0", "0.0"]
    [view] = read_attacks(tmp_path)
    assert view.title == "Relearning by fine-tuning" and len(view.figures) == 1
    [pair] = view.pairs
    assert pair.before and pair.after and pair.before != pair.after
    assert view.found == [("edited/amy-adams", "relearning", "<b>words</b>")]


def test_a_narrow_terminal_cuts_off_no_interval(tmp_path: Path) -> None:
    rates, out = folder_of_attack(tmp_path), StringIO()
    print_rates(rates, Console(file=out, width=40))
    assert out.getvalue().count(attack_rows(rates)[0].cells["control"][1]) >= 1
    assert "…" not in out.getvalue()


def test_the_report_of_a_run_has_a_section_of_its_attacks(tmp_path: Path) -> None:
    folder_of_attack(tmp_path / "attacks")
    (tmp_path / "status.json").write_text('{"status": "finished"}')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'id="attacks"' in page and "Relearning by fine-tuning" in page
    assert "&lt;b&gt;words" in page and "<b>words" not in page
