"""Keys of cache entries: equal for equal content, different for any difference."""

import hashlib
from pathlib import Path

import torch

from mace_exp.utils.hashing import file_digest, key_of, tensors_digest


def test_a_key_depends_on_content_and_not_on_order() -> None:
    assert key_of({"a": 1, "b": [2, 3]}) == key_of({"b": [2, 3], "a": 1})
    assert key_of({"a": 1, "b": [2, 3]}) != key_of({"a": 1, "b": [3, 2]})
    assert len(key_of({})) == 32


def test_keys_stay_the_same_between_versions() -> None:
    """Entries of existing caches are found by these digits."""
    assert key_of({"rank": 1, "path": Path("a")}) == "6b2cfa82b5502baf403714fe73f63d70"


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 100_000)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensors_are_told_apart_by_name_type_shape_and_value() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    digest = tensors_digest({"a": values, "b": values.clone()})
    assert tensors_digest({"b": values, "a": values.T.contiguous().T}) == digest
    others = (
        {"a": values, "c": values.clone()},
        {"a": values, "b": values.double()},
        {"a": values, "b": values.clone().reshape(3, 2)},
        {"a": values, "b": values + torch.tensor([0, 0, 1e-6])},
    )
    assert digest not in map(tensors_digest, others)
