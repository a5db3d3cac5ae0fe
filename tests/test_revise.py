"""Adding concepts to a run and dropping them: what is trained, and what the edit is equal to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mace_exp.export import export
from mace_exp.methods.gates.kept import FILE, kept_gates, read_gates
from mace_exp.methods.mace.kept import kept_loras
from mace_exp.recipe import Recipe
from mace_exp.revise import main
from mace_exp.runs.folder import RunFolder
from mace_exp.stage_plan import stage_works
from tests.recipes import recipe_in
from tests.whole_run import read

PLAIN = ("judge=none", "evaluation=none", "save=weights", "tracking=none", "prompts.count=2")
QUICK = (
    *("images.per_concept=1", "sampling.steps=1", "masks=none"),
    *("lora.steps=1", "lora.batch_size=1", "lora.snapshots=0", "lora.learning_rate=0.05"),
)
FEW = ("preservation.prior.count=4", "preservation.domain.count=4")
TWO = ("Adam Driver", "Amy Adams")
THREE = (*TWO, "Bruce Lee")
Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs of this file."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def make(root: Path, pipeline: Any) -> Make:
    """Make the edit of some names in a new folder; return its recipe."""

    def made(folder: str, names: Sequence[str], *more: str, revises: str | None = None) -> Recipe:
        earlier = [f"revises={root / revises}"] if revises else []
        erased = ("concepts=custom", f"concepts.names=[{','.join(names)}]")
        (root / folder).mkdir()
        (root / folder / "config.yaml").touch()
        recipe = recipe_in(
            *(root / folder, *PLAIN, *FEW, *erased, *more, *earlier),
            pipeline=pipeline,
            cache=root / "cache",
        )
        recipe.check()
        recipe.edit.value  # noqa: B018
        return recipe

    return made


@pytest.fixture(scope="module")
def base(make: Make) -> Recipe:
    """Two people erased by MACE, in the folder `base`."""
    return make("base", TWO, *QUICK)


def difference(one: Recipe, other: Recipe) -> float:
    """The largest relative difference of two edits' weights."""
    first, second = one.edit.value.weights, other.edit.value.weights
    assert first.keys() == second.keys()
    return max(float((first[n] - second[n]).norm() / second[n].norm()) for n in first)


def test_what_is_added_is_trained_alone_and_what_is_dropped_again_leaves_no_trace(
    make: Make, base: Recipe, root: Path
) -> None:
    more = make("more", THREE, *QUICK, revises="base")
    made = more.context.cache.made
    assert (made["loras"], made["images"]) == (1, 1), "of the one that is new"
    work = stage_works(more)["lora"]
    assert work.size == 1 and len(work.stored["loras"]) == 1, "of kept LoRAs there is none"
    for slug in ("adam-driver", "amy-adams"):
        file = f"loras/{slug}.safetensors"
        kept, original = (load_file(root / each / file) for each in ("more", "base"))
        assert all(torch.equal(kept[name], original[name]) for name in original)
    assert len(load_file(root / "more/transforms.safetensors")) == 2, "of two, and of three"
    assert difference(more, base) > 1e-4
    less = make("less", TWO, *QUICK, revises="more")
    assert "loras" not in less.context.cache.made, "nothing is trained"
    assert difference(less, base) < 1e-6


def test_without_refinement_adding_is_the_joint_run(make: Make) -> None:
    """No LoRA then depends on who else is erased: the sums over concepts are the same."""
    settings = (*QUICK, "method.refinement=false")
    make("unrefined", TWO, *settings)
    joint = make("joint", THREE, *settings)
    assert difference(make("added", THREE, *settings, revises="unrefined"), joint) < 1e-6


@pytest.mark.parametrize("method", ["uce", "rece"])
def test_closed_forms_are_solved_again_as_for_the_joint_list(make: Make, method: str) -> None:
    few, joint, more = (f"{method}-{name}" for name in ("few", "joint", "more"))
    make(few, TWO, f"method={method}")
    together = make(joint, THREE, f"method={method}")
    revised = make(more, THREE, f"method={method}", revises=few)
    assert revised.edit.key == together.edit.key and difference(revised, together) == 0


@pytest.mark.parametrize("inner", ["true", "false"])
def test_gates_are_added_beside_those_that_are_there(make: Make, root: Path, inner: str) -> None:
    """And dropped without a trace, whatever the others: nothing is fitted again. Without gates of
    inner tokens, others make up for these."""
    gates = ("method=gates", "method.random_names=5", f"method.inner_tokens={inner}")
    few, more, less = (f"{name}-gates-{inner}" for name in ("few", "more", "less"))
    first = make(few, TWO, *gates)
    make(more, THREE, *gates, revises=few)
    kept, added = (read_gates(root / each / FILE, None) for each in (few, more))
    assert dict(added.mismatch) | dict(kept.mismatch) == added.mismatch
    assert "bruce-lee" in added.mismatch.keys() - kept.mismatch.keys()
    before, after = kept.branches[0], added.branches[0]
    assert before.keys() < after.keys()
    for unit, neurons in before.items():
        assert torch.equal(after[unit].read, neurons.read)
        assert torch.equal(after[unit].write, neurons.write)
    assert any(slug == "bruce-lee" for slug, _ in after.keys() - before.keys())
    assert difference(make(less, TWO, *gates, revises=more), first) == 0
    if kept.mismatch:
        model = first.context.model
        other: Any = SimpleNamespace(text_fingerprint=model.text_fingerprint, fingerprint="other")
        with pytest.raises(ValueError, match=r"UNet.*compensation_images"):
            kept_gates(RunFolder(root / few), other)


def test_a_lora_that_was_changed_or_is_of_another_model_is_not_kept(
    base: Recipe, root: Path, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(root / "base", tmp_path / "copy"))
    with pytest.raises(ValueError, match="was trained on the model"):
        kept_loras(copy, ["amy-adams"], "another")
    file = copy.lora("amy-adams")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match="loras/amy-adams.safetensors is missing, or not what"):
        kept_loras(copy, ["amy-adams"], base.context.model.fingerprint)


def revise(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mace_exp.revise", *arguments])
        main()


def test_the_command_takes_the_settings_of_the_run(
    command: Callable[..., None], tmp_path: Path, tiny_folder: Path
) -> None:
    """Those of single concepts go with them; with everything dropped the model is the original."""
    base, less, none = (tmp_path / name for name in ("base", "less", "none"))
    command(
        *("concepts=[Adam Driver,Amy Adams]", "method=uce", *PLAIN, f"hydra.run.dir={base}"),
        *("model=path", f"model.source={tiny_folder}", f"cache_dir={tmp_path / 'cache'}"),
        "overrides={Adam Driver: {prompts.count: 1}, Amy Adams: {prompts.count: 1}}",
        *("anchors.per_concept={Adam Driver: a man}", "concepts.kinds={Amy Adams: person}"),
    )
    revise(f"from={base}", f"hydra.run.dir={less}", "drop=Adam Driver")
    facts = read(less / "erased.json")
    (left,) = facts["concepts"]
    assert left["name"] == "Amy Adams" and left["overrides"] == {"prompts.count": 1}
    assert facts["method"] == "uce" and len(read(base / "erased.json")["concepts"]) == 2
    revise(f"from={base}", f"hydra.run.dir={none}", "drop=[Adam Driver,Amy Adams]")
    assert read(none / "erased.json")["concepts"] == []
    export(none, tmp_path / "restored")
    name = "unet/diffusion_pytorch_model.safetensors"
    restored, original = (load_file(each / name) for each in (tmp_path / "restored", tiny_folder))
    assert all(torch.equal(restored[each], original[each]) for each in original)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is to be added or dropped"),
        (("drop=Bruce Lee",), "drop names 'Bruce Lee', which"),
        (("add=[Adam Driver]",), "erases already"),
        (("add=[1]",), "is not a name"),
        (("add=Bruce Lee", "lora.per_concept=false"), "one LoRA for all concepts"),
        (("add=Bruce Lee", "method=esd_x"), "no part of its weights is one concept's"),
        (("drop=[Adam Driver,Amy Adams]", "seed=1"), "nothing is left to erase"),
    ],
)
def test_what_cannot_be_revised_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "base").mkdir()
    settings = '["concepts=custom","concepts.names=[Adam Driver,Amy Adams]"]'
    names = "{names: [Adam Driver, Amy Adams]}"
    text = f"arguments: {settings}\nconcepts: {names}\n"
    (tmp_path / "base" / "config.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "base" / "erased.json").write_text('{"model": {}}', encoding="utf-8")
    (tmp_path / "base" / "edit.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit) as refused:
        revise(f"from={tmp_path / 'base'}", f"hydra.run.dir={tmp_path / 'new'}", *arguments)
    assert said in str(refused.value) and refused.value.code == 2
    assert not (tmp_path / "new").exists()
