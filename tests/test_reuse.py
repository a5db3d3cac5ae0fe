"""What whole runs share: nothing is made twice, and nothing is taken for what it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mace_exp.models.sampling import Samples
from tests.forked import begun, ended
from tests.whole_run import PEOPLE, SMALL, UP_TO_FUSION, Run, read, rows


def test_a_second_run_makes_nothing_again(run: Run) -> None:
    first = run("first", PEOPLE)
    second = run("second", PEOPLE)
    assert read(second / "summary.json")["made"] == {}
    assert len(rows(second, "lora")) == len(rows(first, "lora")), "known curves are shown again"
    one, two = load_file(first / "edit.safetensors"), load_file(second / "edit.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_lora_is_trained_again_when_its_mask_files_change(run: Run, tmp_path: Path) -> None:
    masks, made = tmp_path / "masks", []
    for size in (8, 16):
        inside = np.zeros((32, 32), np.uint8)
        inside[:size, :size] = 255
        for slug in ("adam-driver", "amy-adams"):
            (masks / slug).mkdir(parents=True, exist_ok=True)
            for index in range(2):
                Image.fromarray(inside).save(masks / slug / f"{index}.png")
        more = ("masks=precomputed", f"masks.path={masks}", f"stages={UP_TO_FUSION}")
        folder = run(f"masked-{size}", PEOPLE, *more)
        made.append(read(folder / "summary.json")["made"].get("loras"))
    assert made == [2, 2]


def test_a_sweep_over_fusion_weights_trains_once(run: Run) -> None:
    few = ("evaluation.parts=[erased]", "save=weights", "lora.learning_rate=0.002")
    folder = run("sweep", "-m", PEOPLE, "fusion.prior_weight=1,100", *few)
    jobs = [read(folder / str(number) / "summary.json") for number in range(2)]
    assert jobs[0]["made"]["loras"] == 2
    assert "loras" not in jobs[1]["made"] and jobs[1]["reused"]["loras"] == 2
    weights = [load_file(folder / str(number) / "edit.safetensors") for number in range(2)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_loras_are_kept_as_they_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mace_exp.methods.mace.stages import lora

    calls, train = [], lora.train_loras

    def preempted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("preempted")
        return train(*arguments, **named)

    monkeypatch.setattr(lora, "train_loras", preempted)
    apart = ("lora.concepts_per_batch=1", "lora.learning_rate=0.005", f"stages={UP_TO_FUSION}")
    with pytest.raises(RuntimeError, match="preempted"):
        run("cut", PEOPLE, *apart)
    made = read(run("cut", PEOPLE, *apart) / "summary.json")
    assert (made["made"]["loras"], made["reused"]["loras"]) == (1, 1)


def test_pictures_are_kept_as_they_are_drawn(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before and after the edit; those of a run that goes on are those of one in one piece."""
    from mace_exp.stages import samples

    sample_batches = samples.sample_batches
    left = [4]

    def preempted(
        pipeline: Any, texts: Any, seeds: Any, settings: Any, take: Any, **named: Any
    ) -> None:
        def taking(batch: Samples) -> None:
            take(batch)
            left[0] -= len(batch.images)
            if left[0] <= 0:
                raise RuntimeError("preempted")

        sample_batches(pipeline, texts, seeds, settings, taking, **named)

    monkeypatch.setattr(samples, "sample_batches", preempted)
    drawn = (PEOPLE, "evaluation.seed=7", "sampling.batch_size=2")
    with pytest.raises(RuntimeError, match="preempted"):
        run("cut", *drawn)
    left[0] = 6 + 4
    with pytest.raises(RuntimeError, match="preempted"):
        run("cut", *drawn)
    left[0] = 100
    cut = run("cut", *drawn)
    said = read(cut / "summary.json")
    assert left[0] == 100 - 6 and said["made"] == {"edited": 5}, "the last holds two"
    assert (said["reused"]["edited"], said["reused"]["samples"]) == (4, 9)
    whole = run("whole", *drawn, f"cache_dir={tmp_path / 'other'}", "sampling.batch_size=5")
    for path in (whole / "samples").rglob("*.png"):
        pair = [Image.open(f / path.relative_to(whole)) for f in (cut, whole)]
        one, two = (np.asarray(each).astype(int) for each in pair)
        assert np.abs(one - two).max() <= 2, path


def test_two_jobs_at_once_make_what_they_share_once(tiny_folder: Path, tmp_path: Path) -> None:
    stages = UP_TO_FUSION.replace("]", ",samples]")
    shared = ["model=path", f"model.source={tiny_folder}", f"cache_dir={tmp_path / 'cache'}"]
    shared += [*SMALL, PEOPLE, f"stages={stages}", "evaluation.parts=[erased]", "save=weights"]
    jobs = {
        weight: begun(
            [*shared, f"hydra.run.dir={tmp_path / str(weight)}", f"fusion.prior_weight={weight}"],
            tmp_path / f"printed-{weight}.txt",
        )
        for weight in (1, 100)
    }
    for weight, job in jobs.items():
        assert ended(job) == 0, (tmp_path / f"printed-{weight}.txt").read_text()
    summaries = [read(tmp_path / str(weight) / "summary.json") for weight in (1, 100)]
    for kind in ("images", "masks", "statistics", "loras", "samples"):
        counts = [(each["made"].get(kind, 0), each["reused"].get(kind, 0)) for each in summaries]
        entries = list((tmp_path / "cache" / kind).iterdir())
        assert sum(made for made, _ in counts) == len(entries) > 0, kind
        assert [made + reused for made, reused in counts] == [len(entries)] * 2, kind
