"""Files of tensors: equal content makes equal bytes, and a damaged one is named."""

from pathlib import Path

import pytest
import torch

from mace_exp.utils.tensors import load_tensors, save_tensors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.float16)}
FACTS = {f"fact {number} é": f'"{number}"\n' for number in range(9)}


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    turned = dict(reversed(TENSORS.items())), dict(reversed(FACTS.items()))
    written = set()
    for number in range(6):
        file = tmp_path / f"{number}.safetensors"
        save_tensors(file, *((TENSORS, FACTS) if number % 2 else turned))
        written.add(file.read_bytes())
        tensors, facts = load_tensors(file)
        assert facts == FACTS | {"format": "pt"} and tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert len(written) == 1


@pytest.mark.parametrize("size", [0, 7, 60, -1])
def test_a_truncated_file_is_named(tmp_path: Path, size: int) -> None:
    file = tmp_path / "cut.safetensors"
    save_tensors(file, TENSORS, FACTS)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"{file} can't be read as a safetensors file"):
        load_tensors(file)
