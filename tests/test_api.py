"""`from mace_exp import erase`: the stages of a run on a pipeline in memory."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from mace_exp import Erasure, api, erase
from mace_exp.config.composing import composed_run
from mace_exp.data import training_images
from mace_exp.models.loading import load_pipeline
from mace_exp.models.saving import save_pipeline
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline
from tests.whole_run import FEW_IN_MEMORY

PAGE = Path(__file__).parents[1] / "docs" / "python_api.md"


def erased(pipeline: Any, concepts: str | list[str], **more: Any) -> Erasure:
    settings = FEW_IN_MEMORY | more.pop("settings", {})
    return erase(pipeline, concepts, steps=2, progress=False, settings=settings, **more)


def state(pipeline: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}


def changed(before: dict[str, torch.Tensor], pipeline: Any) -> set[str]:
    after = pipeline.unet.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, mace_exp\nassert 'torch' not in sys.modules\nmace_exp.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'mace_exp' has no attribute 'nothing'" in done.stderr


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_xl_pipeline])
def test_only_the_projections_are_edited_and_they_can_be_put_back(make: Callable[[], Any]) -> None:
    pipeline = make()
    before = state(pipeline)
    done = erased(pipeline, ["Adam Driver", "Amy Adams"], preserve=["Amy Poehler"])
    names = {f"unet.{name}" for name in changed(before, pipeline)}
    assert names == set(done.weights) == set(done.original)
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in done.weights)
    assert set(done.loras) == {"adam-driver", "amy-adams"}
    done.restore()
    assert not changed(before, pipeline)
    done.apply()
    assert {f"unet.{name}" for name in changed(before, pipeline)} == set(done.weights)


def test_it_is_the_command_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mace_exp.__main__ import main

    save_pipeline(tiny_pipeline(), tmp_path / "model")
    keys = [f"{key}={value}" for key, value in (FEW_IN_MEMORY | {"lora.steps": 2}).items()]
    arguments = [
        *("concepts=[Adam Driver]", "model=path", f"model.source={tmp_path / 'model'}"),
        *("kept=object_10", "kept.people=[Amy Poehler]", "anchors=man", "lora.rank=2", *keys),
        *("evaluation=none", "tracking=none", "stages=[images,masks,preservation,cfr,lora,fusion]"),
        *(f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    monkeypatch.setattr(sys, "argv", ["mace_exp", *arguments])
    main()
    expected = load_file(tmp_path / "run" / "edit.safetensors")
    pipeline = load_pipeline(tmp_path / "model")
    done = erased(pipeline, "Adam Driver", anchor="a man", preserve=["Amy Poehler"], rank=2)
    assert done.weights.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(done.weights[name], weight, rtol=1e-4, atol=1e-5)


def test_anchors_by_concept_and_names_that_need_quoting(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    done = erased(pipeline, ["Conan O'Brien", "Ann, B"], anchor={"Conan O'Brien": "a man"})
    assert [concept.anchor for concept in done.concepts] == ["a man", "a person"]
    monkeypatch.setattr(api, "_erased", lambda _, config, folder: config)  # what it would run
    kinds = {"concepts.kinds": {"cat": "object"}, "masks": "none"}
    mixed: Any = erased(pipeline, ["Adam Driver", "cat"], preserve=["Amy Poehler"], settings=kinds)
    assert [concept.kind.name for concept in mixed.concept_list()] == ["person", "object"]
    ship: Any = erased(pipeline, "ship", kind="object", anchor="sky", preserve=["dog"])
    assert [concept.anchor for concept in ship.concept_list()] == ["sky"]


def test_a_folder_keeps_the_files_and_what_can_be_used_again(tmp_path: Path) -> None:
    first = erased(tiny_pipeline(), "Adam Driver", folder=tmp_path)
    assert (tmp_path / "erased.json").is_file()
    assert (tmp_path / "loras" / "adam-driver.safetensors").is_file()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "loras").iterdir()}
    again = erased(tiny_pipeline(), "Adam Driver", folder=tmp_path)
    assert made == {path: path.stat().st_mtime_ns for path in made}
    edit = load_file(tmp_path / "edit.safetensors")
    for name in edit:
        assert torch.equal(first.weights[name], again.weights[name])
        assert torch.equal(edit[name], again.weights[name])


def test_without_progress_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    erased(tiny_pipeline(), "Adam Driver")
    assert capsys.readouterr().out.strip() == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "persn"}, "kind = 'persn'"),
        ({"settings": {"lora.rnak": 4}}, "Did you mean lora.rank?"),
        ({"settings": {"masks": "atention"}}, "Did you mean masks=attention?"),
        ({"settings": {"lora.rank": 0}}, "lora.rank = 0 is out of range"),
        ({"anchor": {"Somebody": "a man"}}, "names 'Somebody', which is not erased"),
        ({"anchor": "Adam Driver"}, "the concept itself"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_changed(
    more: dict[str, Any], message: str
) -> None:
    pipeline = tiny_pipeline()
    before = state(pipeline)
    with pytest.raises(ValueError, match=re.escape(message)):
        erased(pipeline, "Adam Driver", **more)
    assert not changed(before, pipeline)


def test_what_the_model_rules_out_is_refused_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(training_images, "draw_images", draw)
    for more in ({"rank": 1000}, {"anchor": "z" * 120}):
        with pytest.raises(ValueError, match="lora.rank.*1000|the model reads 77"):
            erased(tiny_pipeline(), "Adam Driver", **more)


def test_another_method_takes_no_rank_and_makes_no_lora() -> None:
    settings = {k: v for k, v in FEW_IN_MEMORY.items() if not k.startswith(("lora", "images"))}
    settings |= {"method": "uce"}
    pipeline = tiny_pipeline()
    before = state(pipeline)
    done = erase(pipeline, "Adam Driver", preserve=["Amy Poehler"], settings=settings)
    assert {f"unet.{name}" for name in changed(before, pipeline)} == set(done.weights)
    with pytest.raises(ValueError, match="method=mace"):
        _ = done.loras
    with pytest.raises(ValueError, match="lora.rank: method=uce.* does not read lora"):
        erase(pipeline, "Adam Driver", rank=2, settings=settings)


@pytest.mark.parametrize("name", ["rece", "speed"])
def test_further_methods_take_what_they_read(name: str) -> None:
    """And nobody gave the weight of captions that `speed` does not read."""
    unread = ("lora", "images", *(["preservation"] if name == "speed" else []))
    few = {key: value for key, value in FEW_IN_MEMORY.items() if not key.startswith(unread)}
    pipeline = tiny_pipeline()
    before = state(pipeline)
    settings = few | {"method": name}
    done = erase(pipeline, "dog", kind="object", preserve=["cat"], settings=settings)
    assert {f"unet.{each}" for each in changed(before, pipeline)} == set(done.weights)
    done.restore()
    assert not changed(before, pipeline)


def test_a_method_that_preserves_nothing_needs_no_names() -> None:
    settings: dict[str, object] = {"method": "esd_x", "prompts.count": 2}
    settings |= {f"method.{key}": 1 for key in ("updates", "sampling_steps")}
    pipeline = tiny_pipeline()
    before = state(pipeline)
    done = erase(pipeline, "Adam Driver", settings=settings)
    assert {f"unet.{name}" for name in changed(before, pipeline)} == set(done.weights)
    done.restore()
    assert not changed(before, pipeline)


def test_one_bar_is_shown_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that needs another asks for it before it opens its own: two are hard to read."""
    open_bars: list[int] = []
    most: list[int] = []
    start, stop = Progress.start, Progress.stop

    def started(bars: Progress) -> None:
        open_bars.append(1)
        most.append(len(open_bars))
        start(bars)

    def stopped(bars: Progress) -> None:
        open_bars.pop()
        stop(bars)

    monkeypatch.setattr(Progress, "start", started)
    monkeypatch.setattr(Progress, "stop", stopped)
    erased(tiny_pipeline(), "Adam Driver")
    assert len(most) > 5 and set(most) == {1}


def test_a_type_that_is_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match="pipe.unet has weights in torch.float64"):
        erased(tiny_pipeline().to(torch.float64), "Adam Driver")


def test_it_works_inside_an_application_of_hydra() -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from mace_exp.utils.conf import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert composed_run("lora.rank=3").lora.rank == 3
        assert GlobalHydra.instance().is_initialized()


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every block of the page in order, on a tiny model instead of Stable Diffusion."""
    save_pipeline(tiny_pipeline(), tmp_path / "model")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    code = "\n".join(blocks)
    assert "CompVis/stable-diffusion-v1-4" in code
    monkeypatch.chdir(tmp_path)
    few = [f"{key}={value}" for key, value in FEW_IN_MEMORY.items()]
    monkeypatch.setattr(api, "BASE", (*api.BASE, *few, "lora.steps=2"))  # what it leaves to us
    code = code.replace("steps=20", "steps=2").replace('steps": 20', 'steps": 2')
    exec(code.replace("CompVis/stable-diffusion-v1-4", str(tmp_path / "model")), {})
    assert (tmp_path / "after.png").is_file() and (tmp_path / "run" / "edit.safetensors").is_file()
