"""The study of all methods: its runs are accepted, and its table holds what they measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from PIL import Image

from experiments.methods import gates_ablation, unseen_sentences
from experiments.methods.measure import Job, write_results
from experiments.methods.results import (
    ERASED,
    EVALUATION,
    METHODS,
    NAMED,
    ONE_SEED,
    SEEDS,
    STEPS,
    TITLES,
    Run,
    groups,
    lacking,
    read_runs,
    written_rows,
)
from experiments.methods.study import page
from experiments.methods.tables import by_set, markdown, tables
from experiments.unlisted_names.positions import own_gram
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.config.composing import composed_run
from mace_exp.methods.gates import fitting, states
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.models.tokens import end_positions
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline

METRICS: dict[str, Any] = {
    "erased": {
        "accuracy": {"value": 0.25, "low": 0.1, "high": 0.5, "n": 40, "original": 1.0},
        "distances": {"frechet": 7.5, "frechet_interval": [6.5, 9.0], "kernel": 0.01234, "n": 40},
        "top5": {"value": 0.5},
        "pixel_change": 0.2,
    },
    "scenes": {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 60, "original": 1.0}},
    "general": {"distances": {"frechet": 0.5, "n": 30}},
    "harmonic_mean": 0.8,
}
"""What a run measures; `kernel` has no interval where there is one concept."""


@pytest.mark.parametrize(
    ("method", "erase"),
    [(method, "celebrity_10") for method in METHODS] + [("uce", erase) for erase in ERASED],
)
def test_every_run_is_accepted(method: str, erase: str) -> None:
    job = Job(method, erase, 1, "quick", 6)
    given = job.arguments(Path("anywhere"))
    config = composed_run(*(a for a in given[2:] if not a.startswith(("hydra.", "kept="))))
    assert config.method.name == method and config.seed == 1
    assert given[:2] == ["--config-dir", given[1]] and (Path(given[1]) / "kept").is_dir()


def test_the_table_has_a_row_per_finished_run_and_part(tmp_path: Path) -> None:
    jobs = [Job("mace", "celebrity_10", 0, "quick", 6), Job("uce", "celebrity_10", 0, "quick", 6)]
    finish(tmp_path / jobs[0].name, METRICS)
    path = tmp_path / "results.csv"
    write_results(path, jobs, tmp_path)
    rows = written_rows(path)
    assert [row["part"] for row in rows] == ["erased", "scenes", "harmonic_mean"]
    assert rows[1]["frechet"] == "0.5", "scenes are those of the general captions"
    erased = {key: value for key, value in rows[0].items() if value}
    named = dict(zip(NAMED, ("mace", "celebrity_10", "0", "quick", "6"), strict=True))
    shared = named | {"seconds": "12.5", "peak_memory_gb": "2.0"}
    assert erased == shared | {
        **{"part": "erased", "after": "0.25", "low": "0.1", "high": "0.5", "n": "40"},
        **{"original": "1.0", "frechet": "7.5", "frechet_low": "6.5", "frechet_high": "9.0"},
        **{"kernel": "0.0123", "top5": "0.5", "pixel_change": "0.2"},
        **{"identical": "1", "largest_change": "3"},
    }
    write_results(path, jobs[1:], tmp_path)  # none of these is finished
    assert written_rows(path) == rows


def test_rows_of_an_older_table_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "method,erase,seed,evaluation,steps,part,after,low,high,n,original,seconds,peak_memory_gb\n"
        "uce,celebrity_1,0,quick,15,erased,0.0,0.0,0.04,100,0.99,1.4,0.5\n",
        encoding="utf-8",
    )
    job = Job("mace", "celebrity_10", 0, "quick", 6)
    finish(tmp_path / job.name, METRICS)
    write_results(path, [job], tmp_path)
    assert [run.method for run in read_runs(path)] == ["uce", "mace"]
    first, *_ = groups(read_runs(path)).values()
    assert [table.caption.split()[0] for table in tables(first)] == ["recognised,"]


def test_a_table_shows_each_seed_and_then_their_mean_and_range() -> None:
    runs = [run("mace", 0, after=0.1), run("mace", 1, after=0.3), run("uce", 0, after=0.2)]
    (table,) = tables(runs)
    column = table.header.index("erased")
    cells = {row[0]: row[column] for row in table.rows}
    assert cells == {
        "original": "99",
        "images": "100",
        "mace, seed 0": "10 (5 to 15)",
        "mace, seed 1": "30 (25 to 35)",
        "mace, mean and range of 2 seeds": "20 (10 to 30)",
        "uce, seed 0": "20 (15 to 25)",
    }
    assert "| uce, seed 0 | 20 (15 to 25) |" in "\n".join(markdown(runs))


def test_sets_of_concepts_stand_side_by_side() -> None:
    one = replace(run("uce", 0, after=0.2), erase="celebrity_1")
    other = replace(run("uce", 0, after=0.9), evaluation="quick")
    runs = [run("uce", 0, after=0.4), run("uce", 1, after=0.6), run("mace", 0, after=0.1)]
    table = by_set([*runs, one, other])[0]
    assert table.header == ["", "1 person", "10 people"]
    assert table.rows == [
        ["original", "99", "99"],
        ["mace", "", "10 (5 to 15)"],
        ["uce", "20 (15 to 25)", "50 (35 to 65)"],
    ]


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_one_seed_are_those_whose_edit_has_none(method: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    keys = {
        recipe_in(tmp_path, f"method={method}", f"seed={seed}", pipeline=pipeline).edit.key
        for seed in SEEDS
    }
    assert len(keys) == (1 if method in ONE_SEED else len(SEEDS))


def test_the_page_says_what_was_not_run(tmp_path: Path) -> None:
    runs = [run("mace", 0, after=0.1), run("uce", 0, after=0.2)]
    html = page(runs, '<?xml version="1.0"?><svg><path d=""/></svg>')
    assert "10 people, seed 0: not rece, speed, esd_x, gates" in html
    assert "6 styles, seed 1: no method" in html
    assert "10 (5 to 15)" in html and "<?xml" not in html and "2403.06135" in html
    whole = [
        replace(run(method, seed, after=0.5), erase=erase)
        for method in METHODS
        for seed in SEEDS
        for erase in TITLES
        if seed == SEEDS[0] or method not in ONE_SEED
    ]
    assert list(lacking(whole)) == []
    assert list(lacking(whole[1:])) == [f"{TITLES[whole[0].erase]}, seed 0: not mace"]


def test_an_ablation_encodes_the_same_sentences_of_a_layer_once() -> None:
    encoder = stable_diffusion_encoder(tiny_pipeline())
    texts = ["a photo of a cat"]
    with gates_ablation.encoded_once():
        first = fitting.retained_rows(encoder, texts)
        assert fitting.retained_rows(encoder, list(texts)) is first
        assert fitting.retained_rows(encoder, texts, {(1,)}) is not first
        with patch.object(states, "gated_layer", gates_ablation._layer_before):
            other = fitting.retained_rows(encoder, texts)
    assert not torch.allclose(other[0], first[0])
    assert fitting.retained_rows is states.retained_rows


def test_a_sentence_with_two_erased_names_has_an_anchor_for_each() -> None:
    adam, amy = (Concept(name, Kind.person, "a person") for name in ("Adam Driver", "Amy Adams"))
    sentence = unseen_sentences.Sentence("two erased", "Adam Driver with Amy Adams", (adam, amy))
    assert sentence.anchored == "a person with a person"


def test_the_sums_of_own_positions_are_those_of_name_end_and_padding() -> None:
    encoder = stable_diffusion_encoder(tiny_pipeline())
    texts = ["a photo of Adam Driver at night", "Adam Driver"]
    expected = torch.zeros(encoder.width, encoder.width, dtype=torch.float64)
    for text, rows in zip(texts, encoder.encode(texts).double(), strict=True):
        places = encoder.positions(text, "Adam Driver").nonzero().flatten().tolist()
        ids = encoder.token_ids([text])[0].tolist()
        places += end_positions(ids, encoder.tokenizer.eos_token_id)
        expected += sum(torch.outer(rows[place], rows[place]) for place in places)
    torch.testing.assert_close(own_gram(encoder, texts), expected)


def run(method: str, seed: int, *, after: float) -> Run:
    """Return a run that measured the erased alone."""
    row = {"after": after, "low": after - 0.05, "high": after + 0.05, "n": 100, "original": 0.99}
    erased = {key: str(value) for key, value in row.items()}
    return Run(method, "celebrity_10", seed, EVALUATION, STEPS, {"erased": erased})


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write what the study reads of a finished run: ten seconds for the edit, none for pictures."""
    folder.mkdir(parents=True)
    stages = [("cfr", 2.5, 1024), ("lora", 10, 2048), ("samples", 99, 4096)]
    lines = [
        json.dumps({"event": "stage", "stage": name, "seconds": s, "peak_memory_mb": mb})
        for name, s, mb in stages
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "status.json").write_text(json.dumps({"status": "finished"}), encoding="utf-8")
    scores = ["part,phase,file"]
    for number, levels in enumerate(((0, 0), (40, 43))):
        for phase, level in zip(("before", "after"), levels, strict=True):
            file = f"samples/{phase}/{number:04}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (level, 0, 0)).save(folder / file)
            scores.append(f"erased,{phase},{file}")
    (folder / "scores.csv").write_text("\n".join(scores) + "\n", encoding="utf-8")
