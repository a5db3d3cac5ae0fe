"""Preservation caches as files: built, stopped, gone on with, imported, refused, used by a run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mace_exp.concepts.captions import names_in_templates, read_captions
from mace_exp.models.fingerprints import text_fingerprint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from mace_exp.models.saving import save_pipeline
from mace_exp.models.text import readable
from mace_exp.preservation.__main__ import main
from mace_exp.preservation.build import CacheBuild
from mace_exp.preservation.published import import_published
from mace_exp.preservation.statistics import (
    PreservationStatistics,
    preservation_statistics,
    read_statistics,
)

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"
CAPTIONS = [f"a {color} {noun}" for color in ("red", "blue", "green") for noun in ("cat", "ship")]


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_pipeline(pipeline, path)
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Killed(BaseException):
    """As a kill: nothing that catches exceptions catches it."""


def stop_after(batches: int):
    def progress(done: int) -> None:
        nonlocal batches
        batches -= done > 0
        if not batches:
            raise Killed

    return progress


def test_a_stopped_build_goes_on_and_ends_with_the_same_sum(encoder, tmp_path):
    whole = preservation_statistics(encoder, CAPTIONS, "model", batch_size=2)
    job = CacheBuild(encoder, "model", CAPTIONS, tmp_path / "prior.safetensors", batch_size=2)
    with pytest.raises(Killed):
        job.run(stop_after(2))
    assert not job.path.exists() and read_statistics(job.partial).count == 4
    heard: list[int] = []
    made = job.run(heard.append)
    assert heard == [4, 2], "four were done, two were left"
    assert torch.equal(made.total, whole.total) and made.prompts_hash == whole.prompts_hash
    assert [file.name for file in tmp_path.iterdir()] == ["prior.safetensors"]


def test_what_is_kept_while_building_is_a_whole_number_of_batches(encoder, tmp_path):
    path = tmp_path / "prior.safetensors"
    job = CacheBuild(encoder, "model", CAPTIONS, path, batch_size=2, save_every=0.0)
    counts = []
    job.run(lambda _: counts.append(job.partial.exists() and read_statistics(job.partial).count))
    assert counts == [False, False, 2, 4]


@pytest.mark.parametrize("change", ["captions", "model", "damage"])
def test_a_stopped_build_of_another_list_or_model_is_not_gone_on_with(encoder, tmp_path, change):
    path = tmp_path / "prior.safetensors"
    with pytest.raises(Killed):
        CacheBuild(encoder, "model", CAPTIONS, path, batch_size=2).run(stop_after(1))
    captions = CAPTIONS[::-1] if change == "captions" else CAPTIONS
    name = "other" if change == "model" else "model"
    job = CacheBuild(encoder, name, captions, path, batch_size=2)
    if change == "damage":
        job.partial.write_bytes(b"half")
    made = job.run()
    torch.testing.assert_close(
        made.total, preservation_statistics(encoder, captions, name).total, rtol=1e-6, atol=1e-6
    )


def test_a_finished_file_is_left_alone_and_another_refused(encoder, tmp_path):
    path = tmp_path / "prior.safetensors"
    CacheBuild(encoder, "model", CAPTIONS, path).run()
    written = path.stat().st_mtime_ns
    CacheBuild(encoder, "model", CAPTIONS, path).run()
    assert path.stat().st_mtime_ns == written
    for name, captions in (("model", CAPTIONS[1:]), ("other", CAPTIONS)):
        with pytest.raises(ValueError, match="other captions or of another text encoder"):
            CacheBuild(encoder, name, captions, path).run()
    with pytest.raises(ValueError, match="captions is empty"):
        CacheBuild(encoder, "model", [], tmp_path / "none.safetensors").run()


def test_captions_that_the_model_cannot_read_whole_are_left_out_and_named(encoder, caplog):
    long = "a cat and " * 20
    assert readable(encoder, [*CAPTIONS, long]) == CAPTIONS
    assert "1 of 7 captions" in caplog.text and "24 tokens" in caplog.text


def test_captions_come_from_text_and_from_coco(tmp_path):
    assert read_captions(write_lines(tmp_path / "a.txt", ["a  cat", "", " a dog "])) == [
        "a cat",
        "a dog",
    ]
    coco = {"annotations": [{"id": 1, "caption": "A cat.\n"}, {"id": 2, "caption": "A dog."}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
    assert read_captions(tmp_path / "coco.json") == ["A cat.", "A dog."]
    assert names_in_templates(["A", "B"], ["{}", "a photo of {}"]) == [
        "A",
        "B",
        "a photo of A",
        "a photo of B",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "JSON"),
        ("a.json", b'{"images": []}', "not COCO's caption JSON"),
        ("a.json", b'{"annotations": [{"caption": 3}]}', "every caption must"),
        ("a.json", b'{"annotations": []}', "holds none"),
        ("a.txt", b"\n \n", "holds none"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("b.txt", None, "can't be read"),
    ],
)
def test_captions_that_are_none_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)
    with pytest.raises(ValueError, match="write {} once"):
        names_in_templates(["A"], ["a photo"])


def test_the_command_builds_names_in_templates_and_shows_them(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    names = write_lines(tmp_path / "names.txt", ["Adam Driver", "Amy Adams"])
    templates = write_lines(tmp_path / "templates.txt", ["a photo of {}", "{} in the park"])
    out = tmp_path / "domain.safetensors"
    chosen = ["--names", str(names), "--templates", str(templates), "--model", str(folder)]
    assert main(["build", *chosen, "--to", str(out), "--device", "cpu"]) == 0
    made = read_statistics(out)
    assert made.count == 4 and made.fingerprint == text_fingerprint(load_pipeline(folder))
    assert main(["show", str(out)]) == 0
    assert "captions      4" in caplog.text
    own = tmp_path / "own.safetensors"
    more = ["--limit", "5", "--to", str(own), "--model", str(folder)]
    assert main(["build", "--names", str(names), *more]) == 0
    assert read_statistics(own).count == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none.safetensors"], "can't be read"),
        (["build", "--captions", "none.txt", "--to", "x.safetensors"], "captions none.txt"),
        (
            ["import", "none.pt", "--model", "mini", "--to", "x.safetensors"],
            "none.pt is not a file",
        ),
        (
            ["build", "--captions", __file__, "--to", "x.safetensors", "--model", "no/such/model"],
            "does not exist",
        ),
    ],
)
def test_a_wrong_command_is_one_message(caplog, arguments, message):
    assert main(arguments) == 2
    assert message in caplog.text and len(caplog.records) == 1


def cache_of(pipeline, total, *, noise: float = 0.0) -> dict[str, torch.Tensor]:
    """Return a cache as the published code writes it: to_v first, then to_k."""
    weights = projection_weights(pipeline.unet, ("to_v",)) | projection_weights(
        pipeline.unet, ("to_k",)
    )
    cache = {}
    for index, weight in enumerate(weights.values()):
        product = weight.float() @ total.float()
        cache[f"{index}_for_mat1"] = product * (1 + noise)
        cache[f"{index}_for_mat2"] = total.float()
    return cache


@pytest.fixture(scope="module")
def total(encoder):
    return preservation_statistics(encoder, CAPTIONS, "model").total


def test_a_published_cache_becomes_one_matrix_of_count_one(pipeline, total, folder, tmp_path):
    torch.save(cache_of(pipeline, total), tmp_path / "cache.pt")
    out = tmp_path / "prior.safetensors"
    command = ["import", str(tmp_path / "cache.pt"), "--model", str(folder), "--to", str(out)]
    assert main(command) == 0
    made = PreservationStatistics.load(out, text_fingerprint(pipeline))
    assert made.count == 1 and torch.equal(made.total, made.total.mT)
    torch.testing.assert_close(made.mean, total, rtol=1e-5, atol=1e-4)


def test_a_published_cache_that_does_not_fit_is_refused(pipeline, total, tmp_path):
    good = cache_of(pipeline, total)
    first = good["0_for_mat1"]
    cases = {
        "0_for_mat1, 0_for_mat2": {k: v for k, v in good.items() if k != "0_for_mat2"},
        "holds 1 layers": {k: v for k, v in good.items() if k.startswith("0_")},
        "has shape": good | {"0_for_mat1": first[:, :3]},
        "not finite": good | {"0_for_mat1": first * float("nan")},
        "against W mat2": cache_of(pipeline, total, noise=0.01),
        "against the first layer's": good | {"1_for_mat2": good["1_for_mat2"] * 1.5},
        "dictionary of tensors": {"0_for_mat1": 3},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "cache.pt")
        with pytest.raises(ValueError, match=message):
            import_published(tmp_path / "cache.pt", pipeline.unet, "model")


def test_a_cache_that_would_run_code_is_refused(pipeline, tmp_path):
    torch.save({"0_for_mat1": Path}, tmp_path / "cache.pt")  # a class: unpickling would import it
    with pytest.raises(ValueError, match="weights_only"):
        import_published(tmp_path / "cache.pt", pipeline.unet, "model")


@pytest.mark.skipif(not ORACLE.exists(), reason="recorded caches are not here")
def test_recorded_caches_are_imported(tmp_path):
    pipeline = load_pipeline(ORACLE / "tiny_sd", device="cpu")
    for file in sorted((ORACLE / "cache").glob("*.safetensors")):
        recorded = load_file(file)
        torch.save(recorded, tmp_path / "cache.pt")
        made = import_published(tmp_path / "cache.pt", pipeline.unet, "model")
        torch.testing.assert_close(made.mean.float(), recorded["0_for_mat2"], rtol=1e-4, atol=1e-2)
