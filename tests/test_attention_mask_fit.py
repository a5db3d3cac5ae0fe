"""The model's own masks against the true ones of the embedded world, as the study measures them."""

from pathlib import Path

import numpy as np
import pytest

from mace_exp.data.masks.pixels import intersection_over_union

pytestmark = pytest.mark.slow
pytest.importorskip("dicebear", reason="drawing the world needs the mini extra")
pytest.importorskip("resvg_py", reason="drawing the world needs the mini extra")

PICTURES = 4
"""Three people and an object."""
BOUND = 0.6
"""Far below what the study finds (experiments/attention_masks): other weights may ship."""


def test_the_models_own_masks_lie_on_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = pytest.importorskip(
        "experiments.attention_masks.measure", reason="the studies are not beside the tests"
    )
    from experiments.mini_world import world
    from mace_exp.mini import captions
    from mace_exp.models.loading import load_pipeline

    whole = "attention masks"
    monkeypatch.setattr(measure, "VARIANTS", {whole: measure.VARIANTS[whole]})  # the method alone
    for count in ("_TEST_EXPRESSIONS", "_NAMELESS", "_PORTRAITS"):
        monkeypatch.setattr(world, count, int(count == "_TEST_EXPRESSIONS"))  # draws no more
    known = captions.identities()  # as `test_mini_world` holds
    monkeypatch.setattr(world, "draw_identities", lambda names, least_distance: known)
    cases = measure.draw_cases(world.World("test", tmp_path), PICTURES)
    pipeline = load_pipeline(None, device="cpu")
    fits = {"person": [], "object": []}
    for case in cases:
        found = measure.masks(pipeline, case, seed=0)[whole]
        fits[case.concept.kind.name].append(intersection_over_union(found, case.truth))
    assert [len(each) for each in fits.values()] == [3, 1]
    for kind, each in fits.items():
        assert np.mean(each) > BOUND, (kind, each)
