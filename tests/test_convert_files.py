"""Files of the published implementation: how they are read, refused, and used by the command."""

import subprocess
import sys
from pathlib import Path

import pytest

from mace_exp.convert import convert, main, read
from tests.theirs import PRIOR, SHIP, THEIRS, composed, concepts, remarks

CAT = "multi_concept: [[cat, object]]\n"


def test_the_command_prints_the_file_and_never_imports_torch() -> None:
    code = (
        "import sys\nfrom mace_exp.convert import main\n"
        f"assert main([{str(THEIRS)!r}]) == 0\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == convert(read(THEIRS)).text("theirs")


@pytest.mark.parametrize("beside", ["", "exp_name: cats\nseed: 7\n"])
def test_keys_may_stand_under_one_name(beside: str, tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(f"{beside}MACE:\n  multi_concept: [[[cat, object]]]\n  rank: 3\n")
    config = composed(dict(read(file)), tmp_path)
    assert config.lora.rank == 3 and concepts(config)[0][0] == "cat"
    if beside:
        assert config.seed == 7 and remarks(dict(read(file)))[0].startswith("exp_name = cats: ")


def test_a_block_may_lie_deeper_or_hold_a_part(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    for text in (
        "config: {MACE: {multi_concept: [[[cat, object]]], rank: 3}}\n",
        f"{CAT}MACE: {{rank: 3}}\n",
        f"rank: 3\nMACE: {{rank: 3, {CAT.strip()}}}\n",
    ):
        file.write_text(text)
        assert composed(dict(read(file)), tmp_path).lora.rank == 3
        assert not remarks(dict(read(file)))


@pytest.mark.parametrize("folder", ["/a", "[/a]", "[[/a]]"])
def test_class_images_may_be_in_lists(tmp_path: Path, folder: str) -> None:
    file = tmp_path / "theirs.yaml"
    prior = f"with_prior_preservation: true\npreserve_data_dir: {folder}\nclass_prompt: [a man]\n"
    file.write_text(f"{CAT}{prior}prior_preservation_cache_path: ''\n")
    made = convert(read(file))
    assert made.values["prior_images.path"] == "/a" and not made.remarks
    file.write_text(f"{CAT}{prior}class_data_dir: /b\n")
    made = convert(read(file))
    assert made.values["prior_images.path"] == "/b"
    assert [each.split(":")[1] for each in made.remarks] == [" class_data_dir is read instead"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "holds no configuration"),
        ("rank: 4\n", "multi_concept names nothing, or is missing"),
        (f"A: {{{CAT.strip()}}}\nB: {{{CAT.strip()}}}", "has multi_concept in A and in B"),
        (f"rank: 2\nA: {{rank: 3, {CAT.strip()}}}", "rank = 3 in A, and 2 beside it"),
        (f"{CAT}rank: 2\nrank: 3\n", "line 3: duplicate key rank"),
        (f"{CAT}mapping_concept: {{cat: sky}}", "{'cat': 'sky'}: it takes a text, or a list"),
        (f"{CAT}preserve_data_dir: 7", "class_data_dir or preserve_data_dir holds 7"),
        (f"{CAT}output_dir: {{a: ['${{oc.env:HOME}}']}}", "'${oc.env:HOME}', which stands for"),
        (f"{CAT}'${{now:%Y}}': 1", "which stands for another value"),
        ("a: [", "line 1: expected the node content"),
        (f"{CAT}rank: 0", "lora.rank = 0 is out of range"),
        (f"{CAT}resolution: 500", "sampling.height = 500"),
        (f"{CAT}learning_rate: .inf", "lora.learning_rate = inf is out of range"),
        (f"{CAT}lamb: -1", "cfr.closeness = -1 is out of range"),
        (f"{CAT}mapping_concept: cat", "the anchor of 'cat' is 'cat', the concept itself"),
    ],
)
def test_a_refused_file_prints_nothing(
    text: str,
    message: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(text)
    assert main([str(file)]) == 2
    assert message in caplog.messages[-1] and not capsys.readouterr().out


def test_the_block_that_names_concepts_is_read_beside_others(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    block = "MACE:\n  multi_concept: [[cat, object]]\n  mapping_concept: [sky]\n"
    for more in ("", "exp_name: cats\n", "exp_name: cats\nwandb: {project: a}\n"):
        file.write_text(more + block)
        made = convert(read(file))
        assert made.values["concepts.names"] == ["cat"]
        assert any(each.startswith("exp_name = cats") for each in made.remarks) == bool(more)


def test_folders_of_class_images_are_read_by_either_name(tmp_path: Path) -> None:
    for key in ("class_data_dir", "preserve_data_dir"):
        for folder in ("people", ["people"]):
            made = convert(SHIP | PRIOR | {key: folder})
            assert made.options["/prior_images"] == "folder"
            assert made.values["prior_images.path"] == "people"
        several = convert(SHIP | PRIOR | {key: ["people", "cats"]})
        assert "/prior_images" not in several.options
        assert any("all concepts share one folder" in each for each in several.remarks)


def test_a_settings_file_of_this_project_needs_no_conversion(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(convert(SHIP).text("own"))
    with pytest.raises(ValueError, match="give --config-dir DIR experiment=own"):
        read(tmp_path / "own.yaml")
