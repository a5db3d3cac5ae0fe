"""Pipelines and files are written whole or not at all, as every version reads them."""

import errno
import json
import os

import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import utils as hub
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.saving import quiet, save_pipeline
from mace_exp.utils.files import atomic_file, atomic_folder
from mace_exp.utils.tensors import save_tensors
from tests.full_disk import no_file_over
from tests.saved import pipeline as pipeline
from tests.saved import saved as saved


def test_saved_pipeline_loads_with_the_same_weights_frozen(pipeline, saved):
    loaded = load_pipeline(saved, device="cpu")
    for name in ("text_encoder", "unet", "vae"):
        module = getattr(loaded, name)
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        for key, value in getattr(pipeline, name).state_dict().items():
            assert torch.equal(value, module.state_dict()[key]), key
    assert loaded.tokenizer("a cat").input_ids == pipeline.tokenizer("a cat").input_ids


@pytest.mark.parametrize("shown", [(False, False, False), (True, False, True), (False, True, True)])
def test_bars_of_the_libraries_are_as_they_were(shown):
    """Whoever calls `erase` may have switched them off, and those of the hub by themselves."""
    switches = (
        (transformers_logging.enable_progress_bar, transformers_logging.disable_progress_bar),
        (diffusers_logging.enable_progress_bar, diffusers_logging.disable_progress_bar),
        (hub.enable_progress_bars, hub.disable_progress_bars),
    )

    def state():
        libraries = (transformers_logging, diffusers_logging)
        enabled = [each.is_progress_bar_enabled() for each in libraries]
        return (*enabled, not hub.are_progress_bars_disabled())

    before = state()
    try:
        for wanted, (on, off) in zip(shown, switches, strict=True):
            (on if wanted else off)()
        with quiet():
            assert state() == (False, False, False)
        assert state() == shown
    finally:
        for wanted, (on, off) in zip(before, switches, strict=True):
            (on if wanted else off)()


def test_saved_encoder_has_what_transformers_4_reads(saved):
    names = load_file(saved / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    vocabulary = json.loads((saved / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    model = json.loads((saved / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert vocabulary == model["model"]["vocab"]
    merges = (saved / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(merges) == len(model["model"]["merges"]) + 1


def test_half_precision_folder_loads_in_float32_throughout(pipeline, tmp_path):
    save_pipeline(pipeline, tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "half", local_files_only=True)
    assert plain.text_encoder.dtype == plain.unet.dtype == torch.float32
    assert fingerprint(plain) == fingerprint(pipeline)


def test_saving_replaces_a_folder_and_leaves_nothing_beside_it(pipeline, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")
    save_pipeline(pipeline, folder)
    assert not (folder / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_save_keeps_the_old_folder(pipeline, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(pipeline), "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save_pipeline(pipeline, folder)
    assert (folder / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("part", ["unet", "tokenizer"])
def test_a_full_disk_is_an_error_of_the_system(pipeline, tmp_path, part):
    """The libraries raise errors of their own for what they write outside of Python."""
    alone = type(pipeline)(**dict.fromkeys(pipeline.components) | {part: getattr(pipeline, part)})
    with pytest.raises(OSError, match=f"{errno.EFBIG}.*{tmp_path / 'model'}"):
        with no_file_over(5000):
            save_pipeline(alone, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))

    def rename(temporary, path):
        assert synced == [temporary.stat().st_ino] and temporary.read_text() == "whole"
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", rename)
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert len(synced) == 1


def test_atomic_folder_failure_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f"):
        raise RuntimeError
    assert (tmp_path / "f" / "a").read_text() == "1" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_are_as_open_as_the_umask_lets_them(pipeline, tmp_path, umask, mode):
    alone = type(pipeline)(**dict.fromkeys(pipeline.components) | {"unet": pipeline.unet})
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "edit.safetensors", {"a": torch.eye(2)})
        save_pipeline(alone, tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
