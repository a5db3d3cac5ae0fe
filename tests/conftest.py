"""Keeps every test offline, and gives the command line as a function."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("WANDB_API_KEY", None)
os.environ.pop("HYDRA_FULL_ERROR", None)


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused, in an empty folder; return its message."""
    from mace_exp.__main__ import main

    def refused(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mace_exp", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, str), "refused commands exit with a message"
        return stop.value.code

    return refused
