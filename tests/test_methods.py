"""Methods side by side: what each one's equation says, and that a run makes only what it reads."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file

from mace_exp.__main__ import main
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.export import export
from mace_exp.methods.token_pairs import (
    TokenPairs,
    Tokens,
    paired_tokens,
)
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.preservation.statistics import gram
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline
from tests.whole_run import PEOPLE, SMALL, read, rows

ADAM = Concept("Adam Driver", Kind.person, "a person")
TWO = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]", "judge=none")
CLOSED_FORMS = ("rece", "speed", "uce")
UNTRAINED = (*CLOSED_FORMS, "gates")
"""On the tokens of the name."""
HOLDING = ("rece", "uce")
"""Those that read preservation."""
EXPERIMENT = """
kept: {people: [Bruce Lee, Doris Day], objects: [], styles: []}
preservation: {prior: {count: 8}, domain: {count: 8}}
images: {per_concept: 2}
lora: {steps: 3, batch_size: 1}
"""
SENTENCES = ["a photo of Adam Driver", "Adam Driver in the park"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def small_settings(folder: Path) -> list[str]:
    """Return arguments that make a run small: keys that not every method reads are in a file, and
    refused by none."""
    file = folder / "mine" / "experiment" / "small.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{EXPERIMENT}", encoding="utf-8")
    unread = ("lora", "images.", "preservation.")
    small = [each for each in SMALL if not each.startswith(unread)]
    return [f"hydra.searchpath=['file://{folder / 'mine'}']", "experiment=small", *small]


@pytest.mark.parametrize("tokens", Tokens)
def test_tokens_are_aligned_from_the_end_of_the_name(pipeline: Any, tokens: Tokens) -> None:
    encoder = stable_diffusion_encoder(pipeline)
    for old in SENTENCES:
        new = anchor_prompt(old, ADAM)
        rows_, columns = paired_tokens(encoder, ADAM, old, new, tokens)
        name = encoder.positions(old, ADAM.name).nonzero().flatten().tolist()
        anchor = encoder.positions(new, ADAM.anchor).nonzero().flatten().tolist()
        pairs = list(zip(rows_, columns, strict=True))
        assert (name[-1], anchor[-1]) in pairs
        assert set(columns) & set(range(anchor[0])) == set(), "nothing is mapped to words before"
        inside = [pair for pair in pairs if pair[0] in name]
        after = [pair for pair in pairs if pair[0] > name[-1]]
        assert len(inside) == (1 if tokens in (Tokens.last, Tokens.onward) else len(name))
        assert bool(after) == (tokens in (Tokens.onward, Tokens.all))
        assert all(old - name[-1] == new - anchor[-1] for old, new in after)


def test_the_closed_form_of_uce_is_the_optimum(pipeline: Any, tmp_path: Path) -> None:
    """Of the sum over tokens in its docstring: the gradient vanishes, in float64."""
    settings = (
        "method=uce",
        "method.tokens=all",
        "method.erase_scale=2",
        "method.ridge=0.5",
        *TWO,
        *FEW[:3],
    )
    recipe = recipe_in(tmp_path, *settings, "tracking=none", pipeline=pipeline)
    encoder, model = recipe.context.model.encoder, recipe.context.model
    name, original = next(iter(model.projections.items()))
    edited = recipe.edit.value.weights[f"unet.{name}"].double()
    original = original.double()
    gradient = 0.5 * (edited - original)
    for concept in recipe.concepts:
        pairs = [(s, anchor_prompt(s, concept)) for s in recipe.sentences[concept.slug]]
        sums = TokenPairs([(concept, pairs)], Tokens.all).sums(encoder, "")
        gradient = gradient + 2 * (edited @ sums.gram - original @ sums.cross)
    weights = {"prior": 300.0, "domain": 300.0}
    held = recipe.preservation.weighted(weights)
    assert held is not None
    gradient = gradient + (edited - original) @ held
    scale = float((original @ held).norm())
    assert float(gradient.norm()) < 1e-6 * scale


def test_rece_without_rounds_is_uce_and_with_rounds_is_not(pipeline: Any, tmp_path: Path) -> None:
    def edited(*method: str) -> list[torch.Tensor]:
        settings = (*method, *TWO, *FEW[:3], "tracking=none", "evaluation=none")
        return list(recipe_in(tmp_path, *settings, pipeline=pipeline).edit.value.weights.values())

    plain = edited("method=uce")
    same = zip(edited("method=rece", "method.rounds=0"), plain, strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    for more in ("method.accumulate=true", "method.accumulate=false"):
        found = edited("method=rece", "method.rounds=1", more)
        assert all(not torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_token_sums_are_those_of_single_tokens(pipeline: Any) -> None:
    encoder = stable_diffusion_encoder(pipeline)
    pairs = [(old, anchor_prompt(old, ADAM)) for old in SENTENCES]
    sums = TokenPairs([(ADAM, pairs)], Tokens.last).sums(encoder, "")
    states = []
    for old, new in pairs:
        at, to = paired_tokens(encoder, ADAM, old, new, Tokens.last)
        states.append((encoder.encode([old])[0][at[0]], encoder.encode([new])[0][to[0]]))
    concept, anchor = (torch.stack(each).double() for each in zip(*states, strict=True))
    torch.testing.assert_close(sums.gram, gram(concept), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums.cross, anchor.mT @ concept, rtol=1e-5, atol=1e-6)


METHODS = ("mace", *UNTRAINED)


@pytest.fixture(scope="module")
def swept(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over the methods: the folder of job i is that of METHODS[i]."""
    root = tmp_path_factory.mktemp("swept")
    model = ("model=path", f"model.source={tiny_folder}", f"cache_dir={root / 'cache'}")
    given = (*model, *small_settings(root), PEOPLE, "evaluation.parts=[erased]")
    with pytest.MonkeyPatch.context() as patch:
        choice = (f"method={','.join(METHODS)}", f"hydra.sweep.dir={root / 'sweep'}")
        patch.setattr(sys, "argv", ["mace_exp", "-m", *given, *choice])
        main()
    return root / "sweep"


@pytest.mark.parametrize("name", UNTRAINED)
def test_without_training_no_image_and_no_lora(
    swept: Path, command: Callable[..., None], tmp_path: Path, name: str
) -> None:
    folder = swept / str(METHODS.index(name))
    holds = name in HOLDING
    made = set(read(folder / "summary.json")["made"])
    own = {"gates"} if name == "gates" else set()
    assert "edited" in made <= {"samples", "edited", *own, *(["statistics"] if holds else [])}
    stages = [row["stage"] for row in rows(folder, "stage")]
    assert stages == [*(["preservation"] if holds else []), name, "samples", "metrics"]
    assert not (folder / "loras").exists() and not (folder / "masks").exists()
    assert not (folder / "refined.safetensors").exists()
    facts = read(folder / "erased.json")
    assert facts["method"] == name and facts["settings"]["method"]
    assert "lora" not in facts["settings"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"method {name}" in page and "LoRA of rank" not in page
    edit = load_file(folder / "edit.safetensors")
    export(folder, tmp_path / "exported")
    for place in (folder / "erased", tmp_path / "exported"):
        loaded = StableDiffusionPipeline.from_pretrained(place)
        for each, weight in edit.items():
            component, _, parameter = each.partition(".")
            assert torch.equal(getattr(loaded, component).get_parameter(parameter), weight)
    again = shutil.copytree(folder, tmp_path / "again")
    command(f"resume={again}", "stages=[samples,metrics]")
    assert read(again / "summary.json")["made"] == {}, "the edit of the folder is read"


def test_methods_stand_side_by_side_in_a_sweep(swept: Path) -> None:
    jobs = [read(swept / str(number) / "erased.json") for number in range(len(METHODS))]
    assert [job["method"] for job in jobs] == [*METHODS]
    for number in range(1, len(METHODS)):
        made = read(swept / str(number) / "summary.json")["made"]
        assert "samples" not in made, "the original's pictures serve all"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("method=uce", "lora.rank=4"), ("lora.rank=4", "method=uce", "does not read lora")),
        (("method=uce", "masks=none"), ("masks=none", "does not read masks")),
        (("method=uce", "cfr.closeness=1"), ("cfr.closeness=1", "does not read cfr")),
        (("method.loras=false", "lora.steps=3"), ("lora.steps=3", "does not read lora")),
        (("method.refinement=false", "cfr.closeness=1"), ("does not read cfr",)),
        (("method.merge=sum", "fusion.closeness=1"), ("does not read fusion",)),
        (("method=uce", "stages=[lora]"), ("stages", "'lora'", "uce")),
        (("method=esd_x", "lora.rank=4"), ("lora.rank=4", "method=esd_x", "does not read lora")),
        (("method=esd_x", "method.text=names", "prompts.count=2"), ("does not read prompts",)),
        (("method=gates", "lora.rank=4"), ("lora.rank=4", "method=gates", "does not read lora")),
        (("method=gates", "method.sharpness=0"), ("method.sharpness", "above 0")),
        (("method.loras=false", "method.refinement=false"), ("method.loras", "nothing would be")),
        (("method=uc",), ("method=uc", "method=uce")),
        (("method=uce", "method.tokens=first"), ("first", "last, phrase, onward, all")),
        (("method=rece", "lora.rank=4"), ("lora.rank=4", "method=rece", "does not read lora")),
        (("method=speed", "preservation=none"), ("does not read preservation", "reads prompts")),
        (("method=speed", "method.retained_sentences=999"), ("retained_sentences", "at most 128")),
    ],
)
def test_what_a_method_does_not_read_is_refused_by_name(
    refusal: Callable[..., str], given: tuple[str, ...], named: tuple[str, ...]
) -> None:
    message = refusal(*given)
    for each in named:
        assert each in message


def test_the_ablations_are_what_they_say(pipeline: Any, tmp_path: Path) -> None:
    """No LoRAs: W T. LoRAs summed: W T + sum B A. No refinement: T is the identity."""

    def of(*more: str) -> Any:
        settings = (*TWO, *FEW, "evaluation=none", *more)
        return recipe_in(tmp_path, *settings, pipeline=pipeline)

    without_lora = [each for each in FEW if not each.startswith(("lora", "images"))]
    refined = recipe_in(
        tmp_path, *TWO, *without_lora, "evaluation=none", "method.loras=false", pipeline=pipeline
    )
    whole, summed, unrefined = of(), of("method.merge=sum"), of("method.refinement=false")
    transform = whole.method.refinement.value
    assert torch.equal(unrefined.method.refinement.value, torch.eye(32, dtype=torch.float64))
    loras = summed.method.loras.value.loras
    for name, weight in whole.context.model.projections.items():
        expected = weight.double() @ transform
        found = refined.edit.value.weights[f"unet.{name}"].double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        added = sum(lora.change(name.removesuffix(".weight")).double() for lora in loras.values())
        found = summed.edit.value.weights[f"unet.{name}"].double()
        torch.testing.assert_close(found, expected + added, rtol=1e-5, atol=1e-6)
    assert summed.method.loras.key == whole.method.loras.key, "the same LoRAs serve both"
    assert unrefined.method.loras.key != whole.method.loras.key
    assert refined.context.cache.made.get("images") is None


FAMILIES: dict[str, Callable[[], Any]] = {
    "2.x": lambda: tiny_pipeline(pad_token="!", linear=True),
    "SDXL": tiny_xl_pipeline,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_closed_form_edits_other_families(tmp_path: Path, name: str, family: str) -> None:
    settings = [f"method={name}", *TWO, "prompts.count=2", "tracking=none", "evaluation=none"]
    settings += ["kept=none", "kept.people=[Bruce Lee]"]
    if name in HOLDING:
        settings += ["preservation.prior.count=8", "preservation.domain.count=8"]
    recipe = recipe_in(tmp_path, *settings, pipeline=FAMILIES[family]())
    recipe.check()
    edit, projections = recipe.edit.value.weights, recipe.context.model.projections
    kinds = {each.split(".")[-2] for each in edit}
    assert kinds == ({"to_v"} if name == "speed" else {"to_k", "to_v"})
    assert len(edit) == len(projections) * len(kinds) / 2
    assert all(weight.isfinite().all() for weight in edit.values())
    assert all(not torch.equal(w, projections[n.removeprefix("unet.")]) for n, w in edit.items())
