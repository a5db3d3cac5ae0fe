"""What is wrong on the command line or in a file is refused by name, fast and in one message."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Refusal = Callable[..., str]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lora.rnak=4", "lora.rnak: there is no such key. Did you mean lora.rank?"),
        ("+lora.rnak=4", "lora.rnak: there is no such key. Did you mean lora.rank?"),
        ("++lora.rnak=4", "lora.rnak: there is no such key. Did you mean lora.rank?"),
        ("preservation.prior.cuont=4", "Did you mean preservation.prior.count?"),
        ("+masks.treshold=0.3", "Did you mean masks.threshold?"),
        ("+sead=1", "sead: there is no such key. Did you mean seed? Keys: model,"),
        ("mask=none", "mask: there is no such key. Did you mean masks?"),
        ("masks=atention", "masks=atention: there is no such option. Did you mean masks=attention"),
        ("masks=attn", "masks=attn: there is no such option. Did you mean masks=attention?"),
        ("masks=null", "masks=null: there is no such option. Did you mean masks=none?"),
        ("masks=", "masks=: there is no such option. Did you mean masks=none?"),
        ("lora=5", "lora=5: there is no such option. lora takes mini, stable_diffusion"),
        ("experiment=null", "mace_exp: experiment=null: there is no such option. "),
        (
            "lora.rank=abc",
            "lora.rank = abc: it takes a whole number, at least 1, as in lora.rank=1",
        ),
        ("lora.rank=1.5", "lora.rank = 1.5: it takes a whole number"),
        (
            "lora.rank=null",
            "lora.rank = null: it takes a whole number, at least 1, as in lora.rank",
        ),
        ("lora.per_concept=maybe", "lora.per_concept = maybe: it takes true or false"),
        ("concepts.kind=null", "concepts.kind = null: it takes one of person, object, style"),
        (
            "masks.threshold=a",
            "it takes a number, at least 0 and at most 1, as in masks.threshold=1",
        ),
        (
            "sampling.height=abc",
            "takes a whole number, at least 8 and at most 8192, as in sampling.height=8, or null",
        ),
        ("concepts.names=Adam", "it takes a list in brackets, as in concepts='[Adam]'"),
        ("kept.people=Adam", "it takes a list in brackets, as in kept.people='[Adam]'"),
        ("concepts.kinds=Adam", "concepts.kinds = Adam: it takes names with values, in braces"),
        ("anchors.person=", "anchors.person: the name '' is empty"),
        ('concepts=[""]', "concepts.names: the name '' is empty"),
        ("anchors.per_concept={Adam Driver: ''}", "anchors.per_concept: the name '' is empty"),
        ("model.source=/nothere", "or a hub id with model.allow_download=true"),
        ("model.source=some/one", "and downloads are off: give 'mini', a diffusers folder"),
        ("concepts.kind=persn", "Did you mean person? Choices: person, obj"),
        ("concepts=Adam Driver", "concepts='[Adam Driver]'"),
        ("concepts=[Adam Driver", "this is not key=value"),
        ("lora", "lora: this is not key=value"),
        ("lora.alpha=${nope}", "lora.alpha: Interpolation key 'nope' not found"),
        ("resume=/nowhere", "resume = /nowhere "),
    ],
)
def test_a_wrong_argument_is_refused_in_one_message(
    refusal: Refusal, tmp_path: Path, argument: str, message: str
) -> None:
    said = refusal(argument)
    assert message in said and said.startswith("mace_exp: ")
    assert "Traceback" not in said and "\n" not in said
    assert not any(tmp_path.iterdir()), "a refused run leaves nothing"


@pytest.mark.parametrize(
    ("file", "text", "argument", "message"),
    [
        (
            "lora/mine.yaml",
            "defaults: [mini, _self_]\nrnak: 4\n",
            "lora=mine",
            "conf/lora/mine.yaml: lora.rnak: there is no such key. Did you mean lora.rank?",
        ),
        (
            "lora/mine.yaml",
            "defaults: [mini, _self_]\nrank: four\n",
            "lora=mine",
            "conf/lora/mine.yaml: lora.rank = four: it takes a whole number, at least 1",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\nlora:\n  rnak: 4\n",
            "experiment=mine",
            "conf/experiment/mine.yaml: lora.rnak: there is no such key. Did you mean lora.rank?",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /lroa: mini\n",
            "experiment=mine",
            "conf/experiment/mine.yaml: lroa: there is no such key. Did you mean lora?",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /lora: mimi\n",
            "experiment=mine",
            "conf/experiment/mine.yaml: lora=mimi: there is no such option. Did you mean lora=",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\nconcepts:\n  names: Adam\n",
            "experiment=mine",
            "conf/experiment/mine.yaml: concepts.names = Adam: it takes a list in brackets",
        ),
        (
            "masks/mine.yaml",
            "threshold: 0.3\n",
            "masks=mine",
            "conf/masks/mine.yaml: masks.threshold: ",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\nlora:\n  rank: [4\n",
            "experiment=mine",
            "conf/experiment/mine.yaml, line 4: expected ',' or ']', but got '<stream end>' (while "
            "parsing a flow sequence from line 3)",
        ),
        (
            "lora/mine.yaml",
            "defaults: [mini, _self_]\nrank: 4: 5\n",
            "lora=mine",
            "conf/lora/mine.yaml, line 2: mapping values are not allowed here",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(
    refusal: Refusal, tmp_path: Path, *, file: str, text: str, argument: str, message: str
) -> None:
    """By its path: files lie where `--config-dir` says, not in conf/."""
    own = tmp_path / "mine"
    write(own / "conf" / file, text)
    path = f"{own}/" if message.startswith("conf/") else ""
    assert path + message in refusal("--config-dir", str(own / "conf"), argument)
    assert path + message in refusal(f"--config-dir={own / 'conf'}", argument)


def test_an_option_of_the_command_line_is_no_files(refusal: Refusal, tmp_path: Path) -> None:
    """A file that chooses the same is not what was asked for."""
    write(tmp_path / "experiment" / "x.yaml", "defaults:\n  - override /lora: mimi\n")
    assert refusal("--config-dir", str(tmp_path), "lora=mimi").startswith("mace_exp: lora=mimi: ")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lora.rank=0", "lora.rank = 0"),
        (f"cache_dir={__file__}/cache", "can't be written to"),
    ],
)
def test_a_refusal_takes_about_a_second_and_never_imports_torch(
    tmp_path: Path, argument: str, message: str
) -> None:
    code = (
        "import sys, time\nstart = time.process_time()\nfrom mace_exp.__main__ import main\n"
        "message = sys.argv.pop()\ntry:\n    main()\nexcept SystemExit as stop:\n"
        "    assert message in str(stop) and stop.code == 2, stop\n"
        "assert not {'torch', 'numpy', 'diffusers', 'wandb'} & set(sys.modules)\n"
        "print(time.process_time() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, argument, message],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("mace_exp: ") and message in done.stderr
    assert float(done.stdout) < 3  # processor time: other work on the machine does not count
    assert not any(tmp_path.iterdir())
