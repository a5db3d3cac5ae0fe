"""A tiny model, in memory and as a folder, once a file that imports these two."""

from pathlib import Path
from typing import Any

import pytest

from mace_exp.models.saving import save_pipeline
from tests.tiny import tiny_pipeline

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 335\n"
"""What a clone without Git LFS has in the place of a file."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def saved(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_pipeline(pipeline, folder)
    return folder
