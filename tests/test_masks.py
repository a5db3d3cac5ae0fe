"""Masks: thresholds, components, files, fall-backs, and the model's own attention."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image

from mace_exp.data.files import numbered_files
from mace_exp.data.masks.cross_attention import (
    Described,
    attention_masks,
    concept_maps,
    gathered_evidence,
    working_grid,
)
from mace_exp.data.masks.pixels import (
    _components,
    filled,
    intersection_over_union,
    load_masks,
    main_components,
    mask_of_map,
    otsu_threshold,
    overlay,
    without_holes,
)
from mace_exp.models.denoiser import noise_latents
from tests.tiny import tiny_pipeline


def disc(size: int = 48, *, radius: float = 12, centre: tuple[float, float] = (24, 24)):
    y, x = np.mgrid[:size, :size] + 0.5
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def save_masks(masks: list[np.ndarray], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{index:04d}.png")


def test_otsu_parts_two_populations():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.3, 0.03, 3000), rng.normal(0.7, 0.03, 1000)
    threshold = otsu_threshold(np.concatenate([low, high]))
    assert low.max() < threshold < high.min()


def test_otsu_is_the_best_of_all_cuts():
    values = np.random.default_rng(1).beta(2, 5, 5000)
    cut = otsu_threshold(values)

    def between(t):
        inside = values > t
        return (
            inside.mean()
            * (1 - inside.mean())
            * (values[inside].mean() - values[~inside].mean()) ** 2
        )

    assert between(cut) >= max(between(t) for t in np.linspace(0.05, 0.8, 100)) * 0.999


def test_mask_of_a_coarse_map_has_the_shape_of_the_thing():
    fine = disc(96, radius=30, centre=(50, 40))
    coarse = fine.reshape(12, 8, 12, 8).mean((1, 3))
    noisy = coarse * 3 + np.random.default_rng(0).normal(0, 0.3, coarse.shape) - 5
    for values in (coarse, noisy):
        mask = mask_of_map(values, (96, 96))
        assert (mask & fine).sum() / (mask | fine).sum() > 0.85
    assert mask_of_map(coarse, (96, 96), threshold=0.9).sum() < fine.sum()
    assert mask_of_map(coarse, (48, 96)).shape == (48, 96)


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_map_that_says_nothing_gives_an_empty_mask(values):
    assert not mask_of_map(values, (8, 8)).any()


def test_specks_go_and_holes_close():
    thing = disc(radius=12)
    speck = disc(radius=2, centre=(4, 4))
    hole = disc(radius=4)
    assert np.array_equal(main_components(thing | speck), thing)
    assert np.array_equal(without_holes(thing & ~hole), thing)
    two = disc(radius=7, centre=(10, 10)) | disc(radius=8, centre=(36, 36))
    assert np.array_equal(main_components(two), two)
    bay = thing.copy()
    bay[24, 24:] = False  # open to the outside: no hole
    assert np.array_equal(without_holes(bay), bay)
    assert not main_components(np.zeros((5, 5), bool)).any()
    assert without_holes(np.ones((5, 5), bool)).all()


def test_a_winding_component_is_one():
    snake = np.zeros((9, 9), bool)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    snake[8, 8] = False
    assert np.array_equal(main_components(snake), snake)
    apart = snake.copy()
    apart[1, -1] = False  # its first row alone is small beside the rest
    assert np.array_equal(main_components(apart)[2:], snake[2:])
    diagonal = np.eye(4, dtype=bool)
    diagonal[:2, :2] = True
    assert main_components(diagonal).sum() == 6  # single pixels of 1 beside 4: 0.25 is kept
    diagonal[:2, :3] = True
    assert main_components(diagonal).sum() == 7  # 6 and one pixel of 1 out of 7 goes


def flooded(mask):
    """Components by definition: a label a component, spread from neighbour to neighbour."""
    labels = np.full(mask.shape, -1)
    for start in zip(*np.nonzero(mask), strict=True):
        reached = [start] if labels[start] < 0 else []
        while reached:
            y, x = reached.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if inside and mask[y, x] and labels[y, x] < 0:
                labels[y, x] = start[0] * mask.shape[1] + start[1]
                reached += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return labels


def spiral(side):
    mask, at, step = np.zeros((side, side), bool), [0, 0], (0, 1)
    for length in [side - 1, *np.repeat(np.arange(side - 1, 0, -2), 2)]:
        for _ in range(length):
            mask[tuple(at)] = True
            at = [at[0] + step[0], at[1] + step[1]]
        step = (step[1], -step[0])
    return mask


def test_components_are_those_of_a_flood():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0, 1, 60)
    masks = [rng.random(rng.integers(1, 18, 2)) < share for share in shares]
    whole = np.ones((5, 7), bool)
    for mask in [*masks, whole, ~whole, np.eye(9, dtype=bool), spiral(21), ~spiral(21)]:
        labels, expected = _components(mask), flooded(mask)
        assert np.array_equal(labels >= 0, mask)
        pairs = set(zip(labels.ravel(), expected.ravel(), strict=True))
        assert len(pairs) == len(np.unique(labels)) == len(np.unique(expected))


def test_empty_masks_become_whole_images_with_a_warning(caplog):
    masks = np.stack([disc(), np.zeros((48, 48), bool)])
    with caplog.at_level(logging.WARNING):
        result = filled(masks, ["one.png", "two.png"])
    assert result.fallbacks == 1 and result.masks[1].all()
    assert np.array_equal(result.masks[0], masks[0])
    assert "two.png" in caplog.text and "one.png" not in caplog.text


def test_masks_come_back_from_files(tmp_path, caplog):
    masks = [disc(), np.zeros((48, 48), bool)]
    save_masks(masks, tmp_path / "adam")
    again = load_masks(numbered_files(tmp_path / "adam", 2), (48, 48))
    assert np.array_equal(again.masks[0], masks[0]) and again.fallbacks == 1
    assert "0001.png" in caplog.text
    (tmp_path / "adam" / "0000.png").rename(tmp_path / "adam" / "0.png")
    assert load_masks(numbered_files(tmp_path / "adam", 2), (48, 48)).fallbacks == 1


def test_unfit_mask_files_are_named(tmp_path):
    save_masks([disc(), disc()], tmp_path)
    with pytest.raises(ValueError, match=r"0002.png is missing \(3 are needed\)"):
        numbered_files(tmp_path, 3)
    files = numbered_files(tmp_path, 2)
    Image.new("L", (20, 10)).save(tmp_path / "0001.png")
    with pytest.raises(ValueError, match=r"0001.png is 20x10 pixels, its image is 48x48"):
        load_masks(files, (48, 48))
    (tmp_path / "0001.png").write_text("no")
    with pytest.raises(ValueError, match=r"0001.png can't be read"):
        load_masks(files, (48, 48))
    (tmp_path / "1.png").write_text("twice")
    with pytest.raises(ValueError, match=r"0001.png and 1.png, two masks of one image"):
        numbered_files(tmp_path, 2)


def test_intersection_over_union_is_the_shared_part():
    left, right = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :3], right[:, 2:] = True, True
    assert intersection_over_union(left, right) == pytest.approx(4 / 16)
    assert intersection_over_union(left, left) == 1 and intersection_over_union(left, ~left) == 0
    assert intersection_over_union(left & ~left, right & ~right) == 1
    with pytest.raises(ValueError, match="can't be compared"):
        intersection_over_union(left, right[:2])


def test_overlay_dims_the_outside():
    image = np.full((48, 48, 3), 200, np.uint8)
    shown = overlay(image, disc())
    assert shown[24, 24, 0] == 200 and shown[0, 0, 0] == 50 and shown.dtype == np.uint8


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(context_length=16)


@pytest.fixture(scope="module")
def described():
    latents = torch.randn(9, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = [f"a photo of adam {place}" for place in ("", "in the park", "at night")] * 3
    anchors = [prompt.replace("adam", "a person") for prompt in prompts]
    return Described(latents, prompts, anchors, "adam")


def test_attention_masks_are_seeded_and_leave_the_model_as_it_was(pipeline, described):
    processors = dict(pipeline.unet.attn_processors)
    first = attention_masks(pipeline, described, (32, 32), seed=0)
    assert first.masks.shape == (9, 32, 32) and first.masks.dtype == bool
    assert first.masks.any(axis=(1, 2)).all()
    again = attention_masks(pipeline, described, (32, 32), seed=0)
    assert np.array_equal(first.masks, again.masks)
    assert pipeline.unet.attn_processors == processors


def test_images_that_do_not_fit_into_memory_together_get_the_same_maps(pipeline, described):
    expected = concept_maps(pipeline, described, seed=0)
    sizes = []

    def small(_, inputs):
        sizes.append(len(inputs[0]) // 2)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = pipeline.unet.register_forward_pre_hook(small)
    try:
        maps = concept_maps(pipeline, described, seed=0)
    finally:
        hook.remove()
    assert set(sizes) == {8, 4, 2, 1}
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)


def test_concept_maps_see_concept_and_anchor(pipeline, described):
    maps = concept_maps(pipeline, described, seed=0, timesteps=(300,))
    assert maps.shape == (9, 8, 8) and maps.isfinite().all()
    other = Described(described.latents, described.prompts, described.prompts, "adam")
    unchanged = concept_maps(pipeline, other, seed=0, timesteps=(300,))
    assert unchanged.isfinite().all() and not torch.allclose(unchanged, maps)


def test_every_sign_of_the_concept_counts(pipeline, described):
    evidence = next(gathered_evidence(pipeline, described, seed=0, timesteps=(300,)))
    both, attention, change = (
        evidence.maps(signs, spreads=0)
        for signs in (("attention", "change"), ("attention",), ("change",))
    )
    torch.testing.assert_close(both, attention + change)
    for each in (attention, change):
        torch.testing.assert_close(each.mean(dim=(1, 2)), torch.zeros(8), rtol=0, atol=1e-5)
    spread, within = evidence.maps().flatten(1), 1e-5  # rows sum to 1: means of what was there
    assert (spread.amax(1) <= both.flatten(1).amax(1) + within).all()
    assert (spread.amin(1) >= both.flatten(1).amin(1) - within).all()
    with pytest.raises(ValueError, match="'depth': attention, change are"):
        evidence.maps(("depth",))


def test_what_the_unet_says_comes_to_the_cpu_when_it_has_said_all(pipeline, monkeypatch):
    """Each copy would wait for the device. Layers whose size nothing reads are not kept at all."""
    copied, copied_by_forward, to_cpu = [], [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda own: copied.append(own.shape) or to_cpu(own))
    monkeypatch.setattr(
        "mace_exp.data.masks.cross_attention.noise_latents",
        lambda _, latents, *args, **named: latents,
    )
    hook = pipeline.unet.register_forward_pre_hook(lambda *_: copied_by_forward.append(len(copied)))
    described = Described(torch.zeros(2, 4, 40, 40), ["adam"] * 2, ["a person"] * 2, "adam")
    [evidence] = gathered_evidence(pipeline, described, seed=0)
    hook.remove()
    first, *later = copied_by_forward
    assert later == [first, first]
    assert len(copied) - first <= 2, "the change and what belongs together"
    assert set(evidence.cross.maps()) == {(20, 20), (10, 10)}, "not the finest, 40x40"


def test_prompt_without_the_concept_is_refused(pipeline, described):
    wrong = Described(described.latents, described.prompts, described.anchors, "noah")
    with pytest.raises(ValueError, match="noah"):
        attention_masks(pipeline, wrong, (32, 32), seed=0)


def test_noise_follows_the_schedule(pipeline):
    latents = torch.full((2, 4, 64, 64), 3.0)
    noised = noise_latents(pipeline, latents, 400, seed=(0, 0))
    kept = pipeline.scheduler.alphas_cumprod[400]
    assert noised.mean() == pytest.approx(3 * kept.sqrt().item(), abs=0.03)
    assert noised.std() == pytest.approx((1 - kept).sqrt().item(), abs=0.03)


def test_masks_are_read_as_far_into_a_schedule_of_any_length(described):
    pipeline = tiny_pipeline(context_length=24)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, num_train_timesteps=50
    )
    seen = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, given: seen.append(int(given[1])))
    maps = concept_maps(pipeline, described, seed=0)
    hook.remove()
    assert maps.isfinite().all() and sorted(set(seen)) == [10, 20, 30]


def test_working_grid_is_small_enough_to_hold():
    assert working_grid((8, 8)) == (8, 8) and working_grid((64, 64)) == (32, 32)
    assert working_grid((128, 96)) == (32, 24) and working_grid((12, 12)) == (12, 12)
