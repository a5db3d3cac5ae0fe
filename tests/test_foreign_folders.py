"""A folder that someone sent is data: resuming it runs nothing, and reaches nothing, of its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mace_exp.cli.arguments import expand

RUN, SWEEP = "run", "sweep"


def folder_with(path: Path, kind: str, task: Sequence[str], hydra: Sequence[str] = ()) -> Path:
    """A folder as a run or a sweep leaves it, with these arguments."""
    path.mkdir(exist_ok=True)
    if kind == RUN:
        (path / "config.yaml").write_text(yaml.safe_dump({"arguments": list(task)}))
    else:
        said = {"hydra": {"overrides": {"task": list(task), "hydra": list(hydra)}}}
        (path / "multirun.yaml").write_text(yaml.safe_dump(said))
    return path


REFUSED = [
    "+hydra.callbacks.x._target_=os.system",
    "hydra.job_logging.handlers.file.class=logging.FileHandler",
    "++hydra.launcher._target_=os.system",
    "--config-dir=/tmp",
    "hydra.searchpath=[file:///tmp]",
    "model.allow_download=true",
    "++model.allow_download=True",
    "+model={allow_download: true}",
    "masks={'allow_download': yes}",
    "prompts.base_url=https://example.org",
    "prompts.key_env=AWS_SECRET_ACCESS_KEY",
    'prompts={"key_env":AWS_SECRET_ACCESS_KEY}',
    "overrides={ship: {prompts.base_url: https://example.org}}",
    "concepts.names=[${oc.env:HOME}]",
    "cache_dir=${oc.decode:${oc.env:X}}",
]


@pytest.mark.parametrize("kind", [RUN, SWEEP])
@pytest.mark.parametrize("foreign", REFUSED)
def test_what_does_more_than_set_a_run_is_refused(tmp_path: Path, kind: str, foreign: str) -> None:
    folder = folder_with(tmp_path, kind, ["lora.rank=2", foreign])
    with pytest.raises(ValueError) as refused:
        expand([f"resume={folder}"])
    assert foreign in str(refused.value) and f"resume = {folder}" in str(refused.value)


TOLD = [
    "hydra.launcher.setup=[rm -r /]",
    "hydra/launcher=mine",
    "hydra.sweeper._target_=os.system",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.job_logging.root.level=DEBUG",
]


@pytest.mark.parametrize("told", TOLD)
def test_what_hydra_was_told_is_not_taken_from_a_sweep(tmp_path: Path, told: str) -> None:
    folder = folder_with(tmp_path, SWEEP, ["lora.rank=2,4"], [told])
    with pytest.raises(ValueError, match="tells Hydra what to do"):
        expand([f"resume={folder}"])
    assert told in expand([f"resume={folder}", told])[-2:], "who means it gives it again"


def test_settings_and_our_own_launchers_are_taken(tmp_path: Path) -> None:
    task = ["concepts=[Adam Driver]", "lora.alpha=${lora.rank}", "seed=${hydra:job.num}"]
    task += ["experiment=mini_style", "~overrides", "model.allow_download=false"]
    hydra = ["hydra/launcher=slurm", f"hydra.sweep.dir={tmp_path}", "hydra.mode=MULTIRUN"]
    folder = folder_with(tmp_path, SWEEP, [*task, "resume=old"], hydra)
    expanded = expand([f"resume={folder}", "lora.steps=3"])
    assert expanded[: 1 + len(task)] == ["hydra/launcher=slurm", *task]
    assert expanded[1 + len(task) :] == [
        "hydra.mode=MULTIRUN",
        f"hydra.sweep.dir='{folder}'",
        f"resume='{folder}'",
        "lora.steps=3",
    ]


def test_what_reaches_out_is_given_anew(tmp_path: Path) -> None:
    own = ["prompts=llm", "prompts.base_url=https://theirs.org", "prompts.model=m"]
    folder = folder_with(tmp_path, RUN, [*own, "cache_dir=${oc.env:SCRATCH}"])
    with pytest.raises(ValueError, match="give cache_dir=... beside resume="):
        expand([f"resume={folder}", "prompts.base_url=https://mine.org"])
    given = ["prompts.base_url=https://mine.org", "cache_dir=/scratch"]
    expanded = expand([*given, f"resume={folder}"])
    assert "cache_dir=${oc.env:SCRATCH}" not in expanded
    mine, theirs = (expanded.index(f"prompts.base_url=https://{w}.org") for w in ("mine", "theirs"))
    assert theirs < mine, "the last one holds"
