"""Option files of one's own go with the run that was composed of them, as data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mace_exp.attack import run_settings
from mace_exp.check.__main__ import main as check
from mace_exp.cli.arguments import expand
from mace_exp.cli.config_dir import FOLDER, folder_of_options
from mace_exp.cli.run_settings import fitting
from mace_exp.config.composing import composed_run
from mace_exp.config.run_config import RunConfig
from mace_exp.rerun import main as rerun
from mace_exp.revise import main as revise
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import recorded_status

OWN = """# @package _global_
defaults:
  - override /concepts: pair
  - override /anchors: woman
lora: {rank: 3, alpha: "${lora.rank}"}
"""
PAIR = "defaults: [custom, _self_]\nnames: [Amy Adams, Anna Faris]\nkind: person\nkinds: {}\n"
SWEEP = """# @package _global_
hydra: {mode: MULTIRUN, sweeper: {params: {lora.steps: "5,6"}}}
"""


@dataclass
class Runs:
    made: list[tuple[RunConfig, Path]] = field(default_factory=list)

    def run(self, config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
        self.made.append((config, run_dir))
        RunFolder(run_dir).config.write_text(yaml.safe_dump(composed))
        with recorded_status(RunFolder(run_dir)):
            if config.lora.steps == 6 and len(self.made) < 3:
                raise ValueError("six fails at first")
        return {}


@pytest.fixture
def runs(stand_in: Callable[[Callable[..., object]], None], tmp_path: Path) -> Runs:
    made = Runs()
    stand_in(made.run)
    for name, text in {"experiment/own": OWN, "concepts/pair": PAIR, "sweep/both": SWEEP}.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return made


def test_a_run_is_resumed_with_and_without_the_folder_that_it_was_composed_of(
    runs: Runs, command: Callable[..., None], tmp_path: Path
) -> None:
    command("--config-dir", "mine", "experiment=own", "hydra.run.dir=run")
    command("--config-dir", "mine", "resume=run", "lora.steps=7")
    (tmp_path / "mine").rename(tmp_path / "gone")
    command("resume=run", "lora.rank=4")
    command("resume=run", "--config-dir", "gone")
    (first, _), (second, _), (third, place), (last, _) = runs.made
    assert first.concepts.names == third.concepts.names == ["Amy Adams", "Anna Faris"]
    assert (first.lora.rank, second.lora.steps, third.lora.alpha) == (3, 7, 4)
    assert last.concepts == first.concepts
    assert place == runs.made[0][1]
    assert (place / FOLDER / "concepts" / "pair.yaml").read_text() == PAIR


def test_a_file_of_a_run_is_told_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("arguments: [lora.rank=3]\n")
    with pytest.raises(ValueError, match=f"config.yaml is a file: .* resume={tmp_path}$"):
        expand([f"resume={file}"])


def test_a_sweep_is_run_again(
    runs: Runs, command: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        command("--config-dir", "mine", "experiment=own", "sweep=both", "hydra.sweep.dir=all")
    (tmp_path / "mine").rename(tmp_path / "gone")
    monkeypatch.setattr("sys.argv", ["rerun"])
    rerun(["all"])
    assert [config.lora.steps for config, _ in runs.made] == [5, 6, 6]
    command("resume=all/0", "lora.steps=9")
    assert {config.lora.rank for config, _ in runs.made} == {3}


HARMFUL = {
    "experiment/a.yaml": [
        "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n",
        "# @package hydra.callbacks.x\n_target_: os.system\n",
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {_target_: x, params: {}}}\n",
        "# @package _global_\ndefaults: [{override /hydra/launcher: mine}]\n",
        "# @package _global_\ndefaults: [{'/concepts@hydra.launcher': mine}]\n",
        "# @package _global_\ndefaults: [{/concepts: '${oc.env:HOME}'}]\n",
        "# @package _global_\ncache_dir: ${oc.env:AWS_SECRET_ACCESS_KEY}\n",
        "# @package _global_\nmodel: {allow_download: true}\n",
        "# @package _global_\nprompts: {base_url: 'https://example.org'}\n",
        "# @package _global_\nother: 1\n",
        "# @package _global_\nseed: !!python/object/apply:os.system [ls]\n",
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {hydra.x: 1}}}\n",
        "# @package _global_\nhydra: {sweeper: {params: {prompts.base_url: 'http://x,http://y'}}}\n",
        "# @package _global_\nhydra: {sweeper: {params: {cache_dir: '${oc.env:HOME},b'}}}\n",
        "# @package _global_\nhydra: {launcher: {partition: theirs}}\n",
        "# @package _global_\ndefaults: [{/concepts: [custom, ../../x]}]\n",
    ],
    "prompts/a.yaml": ["key_env: AWS_SECRET_ACCESS_KEY\n", "- a\n"],
    "hydra/launcher/a.yaml": ["_target_: os.system\n"],
    "callbacks/a.yaml": ["seed: 1\n"],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in HARMFUL.items() for text in texts]
)
def test_options_that_do_more_than_set_a_run_are_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "config.yaml").write_text("arguments: [experiment=a]\n")
    file = tmp_path / FOLDER / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ValueError, match="or give --config-dir DIR beside resume="):
        expand([f"resume={tmp_path}"])
    (tmp_path / "mine").mkdir()
    own = ("--config-dir", f"{tmp_path / 'mine'}")
    assert expand([*own, f"resume={tmp_path}"])[:3] == [*own, "experiment=a"]


def test_a_key_that_is_given_is_that_of_the_file_s_package(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("arguments: [prompts=a]\n")
    file = tmp_path / FOLDER / "prompts" / "a.yaml"
    file.parent.mkdir(parents=True)
    given = [f"resume={tmp_path}", "prompts.base_url=http://mine"]
    file.write_text("base_url: http://theirs\n")
    assert "prompts=a" in expand(given)
    file.write_text("# @package judge\nbase_url: http://theirs\n")
    with pytest.raises(ValueError, match="judge.base_url reaches out"):
        expand(given)


def test_other_commands_find_the_options_that_a_run_keeps(
    runs: Runs, command: Callable[..., None], tmp_path: Path
) -> None:
    command("--config-dir", "mine", "experiment=own", "hydra.run.dir=run")
    (tmp_path / "mine").rename(tmp_path / "gone")
    for options in (None, tmp_path / "gone"):
        folder, given = folder_of_options(run_settings(tmp_path / "run", options))
        assert composed_run(*given, config_dir=folder).lora.rank == 3
    revise(["from=run", "add=[Tom Hanks]", "hydra.run.dir=more"])
    revise(["from=run", "drop=[Amy Adams]", "hydra.run.dir=fewer", "--config-dir", "gone"])
    (_, more, fewer) = (config for config, _ in runs.made)
    assert more.concepts.names == ["Amy Adams", "Anna Faris", "Tom Hanks"]
    assert fewer.concepts.names == ["Anna Faris"]
    assert more.lora.rank == fewer.lora.rank == 3
    assert (tmp_path / "more" / FOLDER / "concepts" / "pair.yaml").read_text() == PAIR
    assert check(["--files", "resume=run"]) == 0


def test_an_option_chosen_anew_leaves_out_what_only_the_run_s_had(tmp_path: Path) -> None:
    kept = ["judge=command", "judge.command=x", "evaluation.seed=3", "attack.images=2"]
    (tmp_path / "config.yaml").write_text(f"arguments: {kept}\n")
    given = [f"resume={tmp_path}", "judge=clip", "attack=relearning"]
    found = expand(given)
    assert "judge.command=x" not in found
    assert {"evaluation.seed=3", "attack.images=2"} <= set(found)
    assert "evaluation.seed=3" not in expand([*given, "evaluation=none"])
    assert "evaluation.seed=3" in expand([*given, "evaluation=quick"])
    assert fitting(kept, ["judge.timeout=3"]) == kept
