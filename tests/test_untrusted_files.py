"""Nothing that someone sent runs code, or leads out of its folder."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from mace_exp.data.files import concept_files
from mace_exp.data.training_images import load_images
from mace_exp.models.auxiliary import check_auxiliary
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sources import find_model
from mace_exp.preservation.published import _tensors
from mace_exp.report.read_run import image_in, read_attention, read_masks, read_samples
from mace_exp.runs.claims import claim, release
from mace_exp.utils.yaml_files import read_plain


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.mark, "ran")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


PICKLES = [
    ("unet", "diffusion_pytorch_model.bin"),
    ("unet", "diffusion_pytorch_model.pt"),
    ("vae", "diffusion_pytorch_model.bin"),
    ("text_encoder", "pytorch_model.bin"),
    ("text_encoder", "model.ckpt"),
]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside safetensors"])
@pytest.mark.parametrize("part, name", PICKLES)
def test_no_pickle_in_a_model_is_read(
    model: Path, mark: Path, part: str, name: str, alone: bool
) -> None:
    (model / part / name).write_bytes(pickle.dumps(Evil(mark)))
    if alone:
        for file in (model / part).glob("*.safetensors"):
            file.unlink()
        with pytest.raises(ValueError, match="has no .safetensors weights"):
            load_pipeline(model, device="cpu")
    else:
        load_pipeline(model, device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt", ".pth", ".pkl"])
def test_a_pickle_is_no_checkpoint_and_no_model_of_words(
    tmp_path: Path, mark: Path, suffix: str
) -> None:
    file = tmp_path / "llm" / f"pytorch_model{suffix}"
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(Evil(mark)))
    (file.parent / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="only .safetensors is read"):
        find_model(file, file_config=tmp_path)
    with pytest.raises(ValueError, match="has no .safetensors weights"):
        check_auxiliary(str(file.parent))
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_published_cache_runs_nothing(tmp_path: Path, mark: Path, zipped: bool) -> None:
    file = tmp_path / "cache.pt"
    torch.save({"0_for_mat1": Evil(mark)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="weights_only"):
        _tensors(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "processor_config.json", "adapter_config.json"]
)
@pytest.mark.parametrize("part", ["", "tokenizer", "unet", "text_encoder"])
def test_remote_code_and_adapters_are_refused(model: Path, part: str, name: str) -> None:
    file = model / part / name
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(found | {"auto_map": {"AutoModel": "theirs--evil.Model"}}))
    with pytest.raises(ValueError, match="auto_map|adapter"):
        find_model(model)


@pytest.mark.parametrize("tag", ["object/apply:os.system [true]", "name:os.system", "module:os"])
def test_no_tag_of_yaml_is_obeyed(tmp_path: Path, tag: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"a: !!python/{tag}")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        read_plain(file)


@pytest.fixture(params=["..", "absolute", "a link"])
def outside(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder, and how a table in it may name a picture outside."""
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    if request.param == "a link":
        (folder / "0000.png").symlink_to(secret)
        return folder, "0000.png"
    return folder, "../secret.png" if request.param == ".." else str(secret)


def test_no_table_of_a_run_leads_out_of_its_folder(outside: tuple[Path, str]) -> None:
    folder, name = outside
    (folder / "prompts.csv").write_text(f"part,before,after\nerased,{name},{name}\n")
    (folder / "index.csv").write_text(f"concept,phase,prompt,file,image_index\na,b,c,{name},0\n")
    assert [(each.before, each.after) for each in read_samples(folder)] == [(None, None)]
    assert not read_attention(folder) and not read_masks(folder)
    assert image_in(folder, name) is None


def test_no_list_of_training_images_leads_out(outside: tuple[Path, str]) -> None:
    folder, name = outside
    (folder / "prompts.csv").write_text(f"index,file,prompt,seed\n0,{name},a,0\n")
    with pytest.raises(ValueError, match="no file of its folder|can't be read"):
        load_images(folder)


def test_no_prompts_of_the_users_images_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "ship"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    (folder / "prompts.csv").write_text("file,prompt\na.png,x\n../b.png,y\n")
    with pytest.raises(ValueError, match=r"names ../b.png, which is not an image of its folder"):
        concept_files(tmp_path, ["ship"])


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl", "samples"])
def test_nothing_is_written_through_a_link_out_of_the_run(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    (folder / name).symlink_to(other)
    with pytest.raises(ValueError, match=f"{name} in it is a link out of the folder, to "):
        claim(folder, "hydra.run.dir")
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "within")
    claim(folder, "hydra.run.dir")
    release(folder)


def test_the_one_place_is_the_only_one() -> None:
    """Whoever calls `from_pretrained` passes the options of utils/trusted.py."""
    package = Path(__file__).parents[1] / "mace_exp"
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        calls = text.count(".from_pretrained(")
        assert calls == text.count("**WEIGHTS") + text.count("**WORDS"), file
        assert "torch.load(" not in text or file.name == "published.py", file
