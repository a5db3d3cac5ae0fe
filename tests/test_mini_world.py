"""The embedded model's world: who looks like whom, what is drawn where, what captions say."""

from pathlib import Path

import numpy as np
import pytest

from mace_exp.concepts.prompts import EVALUATION_TEMPLATES, TRAINING_TEMPLATES
from mace_exp.mini import captions

pytest.importorskip("dicebear", reason="drawing the world needs the mini extra")

from experiments.mini_world import art, scenes, world  # noqa: E402
from experiments.mini_world.caption_sampling import draw_caption  # noqa: E402
from experiments.mini_world.language import CONTEXT, tokenizer  # noqa: E402
from experiments.mini_world.world import LEAST_DISTANCE, World, compose  # noqa: E402


def test_no_two_people_look_alike() -> None:
    known = captions.identities().values()
    faces = np.stack([art.thumbnail(identity) for identity in known]).reshape(200, -1)
    distances = np.abs(faces[:, None] - faces).mean(-1) + 1000 * np.eye(200)
    assert distances.min() >= LEAST_DISTANCE


def test_the_table_of_identities_is_what_the_recipe_draws() -> None:
    assert captions.identities() == art.draw_identities(
        captions.people(), least_distance=LEAST_DISTANCE
    )


def test_expressions_change_and_identities_stay() -> None:
    (identity,) = art.draw_identities(["Adam Driver"], least_distance=LEAST_DISTANCE).values()
    first, second = art.person(identity, 1), art.person(identity, 2)
    assert not np.array_equal(first, second)
    hair = first[:20, :, :3][first[:20, :, 3] == 255]
    assert np.array_equal(hair, second[:20, :, :3][second[:20, :, 3] == 255])


@pytest.mark.parametrize("scene", captions.SCENES)
def test_every_scene_fills_its_canvas(scene: str) -> None:
    drawn = art.rasterise(scenes.scene_svg(scene, np.random.default_rng(0)), 96)
    assert drawn.shape == (96, 96, 4) and (drawn[..., 3] == 255).all()


def test_the_mask_is_where_the_picture_differs_from_its_background() -> None:
    background = np.full((96, 96, 3), 200, np.uint8)
    sprite = art.object_drawings("cat")["noto:cat"]
    image, mask = compose(sprite, background, np.random.default_rng(0))
    assert (image[mask == 0] == 200).all()
    assert 0.05 < (mask > 0.5).mean() < 0.9


def test_captions_fit_the_context_and_name_their_subject() -> None:
    generator, words = np.random.default_rng(0), tokenizer()
    for subject in (*captions.subject_classes(), *captions.NAMELESS):
        said = draw_caption(subject, "on a yellow background", generator)
        assert len(words(said.text).input_ids) <= CONTEXT
        if subject not in (captions.NOBODY, captions.NOTHING):
            assert subject.lower() in said.text


def test_every_template_of_a_run_fits_the_context() -> None:
    words = tokenizer()
    longest = max(captions.people(), key=lambda name: len(words(name).input_ids))
    for template in (*TRAINING_TEMPLATES, *EVALUATION_TEMPLATES):
        assert len(words(template.format(longest)).input_ids) <= CONTEXT


def test_a_picture_is_a_function_of_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"_TEST_EXPRESSIONS": 1, "_NAMELESS": 8, "_PORTRAITS": 8, "_BACKGROUNDS": 4}
    for name, count in few.items():
        monkeypatch.setattr(world, name, count)
    known = dict(list(captions.identities().items())[:3])
    monkeypatch.setattr(world, "draw_identities", lambda names, least_distance: known)
    first, again = World("test", tmp_path).draw(7), World("test", tmp_path).draw(7)
    assert np.array_equal(first.image, again.image) and first.caption == again.caption
