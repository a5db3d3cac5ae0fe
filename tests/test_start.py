"""What a command imports before it answers, and how it ends when nobody reads the answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mace_exp.config.composing import composed_run
from mace_exp.config.early import unknown_keys, unknown_options, wrong_numbers
from mace_exp.utils.threads import SPINS, limit_spinning

ROOT = Path(__file__).parents[1]
ASKED = "import sys\nfrom mace_exp.__main__ import main\ntry:\n    main()\nfinally:\n"
LISTED = "    print(*sorted({each.split('.')[0] for each in sys.modules}), file=sys.stderr)"


def imported(*arguments: str) -> set[str]:
    """Return the packages outside the standard library that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", ASKED + LISTED, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *packages()])},
    )
    return set(done.stderr.splitlines()[-1].split()) - sys.stdlib_module_names - {"__main__"}


def packages() -> list[str]:
    return [each for each in sys.path if each.endswith("site-packages")]


@pytest.mark.parametrize(
    "command",
    [
        *(["--help"], ["--help", "masks"], ["--version"]),
        *(["lora.rnk=4"], ["sead=1", "masks.x=1"], ["lora.rank=0"], ["lora.rank=4.5", "seed=1"]),
        ["concepts=celebrty"],
    ],
    ids=" ".join,
)
def test_help_and_early_refusals_import_nothing_but_the_package(command: list[str]) -> None:
    assert imported(*command) == {"mace_exp"}


def test_a_wrong_value_imports_what_composes_and_no_more() -> None:
    """PIL, numpy and rich belong to pictures and reports, torch to a run."""
    heavy = {"torch", "diffusers", "transformers", "numpy", "PIL", "rich", "wandb"}
    found = imported("lora.rank=four")
    assert "hydra" in found and not heavy & found


@pytest.mark.parametrize(
    "arguments",
    [
        ["lora.rank=4", "seed=1", "+lora.rank=4", "++seed=2"],
        ["preservation.weights.boats=1", "overrides={cat: {lora.rnk: 4}}", "concepts.kinds.x=a"],
        ["experiment=x", "sweep=seeds", "hydra.run.dir=x", "hydra/launcher=slurm", "~seed"],
        ["masks=nothere", "lora=5", "lora", "--cfg", "job", "-m"],
        ["masks.threshold=0.2", "masks.path=x"],  # keys of two options of one group
        ["--config-dir", "mine", "+mine=4"],  # a group of the user's own
    ],
)
def test_what_may_be_known_is_left_to_hydra(arguments: list[str]) -> None:
    assert not [*unknown_keys(arguments)]


def test_each_unknown_key_is_named() -> None:
    found = [*unknown_keys(["lora.rnk=4", "mask=none", "-m", "+preservation.prior.cuont=3"])]
    likely = ("lora.rank", "masks", "preservation.prior.count")
    assert [f"Did you mean {key}?" in said for key, said in zip(likely, found, strict=True)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["lora.rank=0", "sampling.steps=0"],
        ["lora.rank=4.5"],
        ["lora.learning_rate=-1e-3"],
        ["lora.rank=100000000000000000000"],
        ["masks.threshold=1.5"],
        ["preservation.prior.unit=0"],
    ],
    ids=" ".join,
)
def test_a_wrong_number_is_refused_early_in_the_words_of_validation(arguments: list[str]) -> None:
    found = [*wrong_numbers(arguments)]
    with pytest.raises(ValueError) as refused:
        composed_run(*arguments)
    assert len(found) == len(arguments) and {*found} <= {*str(refused.value).splitlines()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["lora.rank=4", "seed=0", "lora.learning_rate=1", "masks.threshold=null", "device=1"],
        ["lora.rank=0", "lora.rank=4"],  # the last one counts
        ["lora.rank=4.0", "lora.rank='0'", "lora.rank=${seed}", "+lora.rank=0", "concepts=[7]"],
        ["lora.rank=0", "-m"],
        ["lora.rank=0", "--cfg", "job"],
        ["lora.rank=0", "sweep=seeds"],
        ["--config-dir", "mine", "lora.rank=0"],
        ["preservation.weights.boats=-1", "nothere.rank=0", "lora.rank.x=0", "lora=0", "x"],
    ],
    ids=" ".join,
)
def test_what_may_be_right_is_left_to_validation(arguments: list[str]) -> None:
    assert not [*wrong_numbers(arguments)]


@pytest.mark.parametrize("group", ["concepts", "model", "experiment", "attack", "masks", "sweep"])
def test_an_unknown_option_is_refused_early_in_the_words_of_composition(group: str) -> None:
    """`celebrity-1` and `Off` show how options are suggested."""
    for option in ("nothere", "celebrity-1", "Off", "mace_v1"):
        argument = f"{group}={option}"
        found = [*unknown_options([argument, argument])]
        with pytest.raises(ValueError) as refused:
            composed_run(argument)
        assert found == ([str(refused.value)] if group != "sweep" else [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["concepts=celebrity_10", "model=mini", "seed=nothere", "cfr.nothere=x"],
        ["concepts=Null", "experiment=null", "masks=true", "concepts=[ship]", "masks='none'"],
        ["experiment=published/celebrity_1", "experiment=published/nothere", "hydra/launcher=x"],
        ["concepts=mine", "--config-dir", "mine"],
        ["concepts=mine", "hydra.searchpath=[mine]"],
        ["concepts=mine", "resume=run"],  # with the options that the run's folder keeps
        ["masks=nothere", "-m"],
        ["masks=nothere", "sweep=seeds"],
    ],
    ids=" ".join,
)
def test_options_that_may_be_known_are_left_to_hydra(arguments: list[str]) -> None:
    assert not [*unknown_options(arguments)]


@pytest.mark.parametrize("command", [["--help"], ["--cfg", "job"]], ids=" ".join)
def test_a_reader_that_closes_the_pipe_is_no_error(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mace_exp", *command],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.close(writing)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
    ids=str,
)
def test_threads_wait_as_the_user_says_or_sleep_soon(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], count: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # restored after the test, whatever is set in it
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == count
