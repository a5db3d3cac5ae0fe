"""Wrong command lines at every command but the first: exit status 2, one message that says what is
wrong, and nothing is written."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.fake_run import make_run
from tests.fake_scores import write_scores

PACKAGES = ("check", "preservation", "report")
"""Commands that are folders with a `__main__`."""
ATTACKED = ("run={run}", "attack=completion")
BUILD = ("build", "--model", "mini", "--to", "{new}")
LINES: dict[str, dict[tuple[str, ...], str]] = {
    "attack": {
        (): "the following arguments are required",
        ("attack=inversion",): "name one run",
        ("run=", "attack=inversion"): "name one run",
        ("run={run}", "run={run}", "attack=inversion"): "name one run",
        ("run={run}",): "name an attack",
        ("run={run}", "attack=none"): "attack=none is no attack",
        ("run={run}", "attack=inverion"): "attack=inverion: there is no such option",
        ("run={missing}", "attack=inversion"): "{missing} is no run folder",
        ("run={empty}", "attack=inversion"): "{empty} is no run folder",
        ("run={file}", "attack=inversion"): "{file} is no run folder",
        ("run={sweep}", "attack=inversion"): "{sweep} is the folder of a sweep",
        ("run={damaged}", "attack=inversion"): "{damaged}/config.yaml",
        (*ATTACKED, "lora.rank=3"): "lora.rank=3: the run's own settings hold",
        (*ATTACKED, "seed=3"): "seed=3: the run's own settings hold",
        (*ATTACKED, "attack.images=0"): "attack.images = 0",
        (*ATTACKED, "attack.images=few"): "attack.images = few: it takes a whole number",
        (*ATTACKED, "attack.imges=3"): "attack.imges: there is no such key",
        (*ATTACKED, "attack.path={missing}"): "{missing}",
        (*ATTACKED, "judge=nothere"): "judge=nothere: there is no such option",
        (*ATTACKED, "device=gpu0"): "device: 'gpu0' is not allowed",
        (*ATTACKED, "model.source={missing}"): "{missing}",
        (*ATTACKED, "completion"): "completion: the run's own settings hold",
        ("run={run}", "attack=paraphrase", "attack.file={missing}"): "{missing}",
        (*ATTACKED, "--config-dir"): "expected one argument",
        (*ATTACKED, "--nothere"): "unrecognized arguments: --nothere",
    },
    "cache": {
        ("{missing}",): "{missing} is no cache",
        ("{empty}",): "{empty} is no cache",
        ("{file}",): "{file} is no cache",
        ("{run}",): "{run} is no cache",
        ("{cache}", "--older", "-1"): "--older -1: a number of days is at least 0",
        ("{cache}", "--older", "nan"): "--older nan",
        ("{cache}", "--older", "week"): "argument --older: invalid float value: 'week'",
        ("{cache}", "--older"): "argument --older: expected one argument",
        ("{cache}", "{run}"): "unrecognized arguments",
        ("--cler",): "unrecognized arguments: --cler",
    },
    "check": {
        ("lora.rank=0",): "lora.rank = 0",
        ("lora.rnak=3",): "lora.rnak: there is no such key",
        ("lora",): "lora: this is not key=value",
        ("masks=nothere",): "masks=nothere: there is no such option",
        ("resume={missing}",): "resume = {missing}",
        ("resume={empty}",): "resume = {empty}",
        ("resume={damaged}",): "{damaged}/config.yaml",
        ("model=path", "model.source={missing}"): "{missing}",
        ("model=path", "model.source={empty}"): "{empty}",
        ("images=folder", "images.path={missing}"): "{missing} is not a folder",
        ("images=folder", "images.path={empty}"): "{empty} has no folder",
        ("concepts=[]",): "concepts",
        ("experiment=nothere",): "experiment=nothere: there is no such option",
        ("preservation.prior.file={missing}",): "preservation.prior.file = {missing}",
        (
            "preservation.prior.cache={text}",
            "concepts=[airplane]",
            "concepts.kind=object",
        ): "{text}",
        ("--config-dir", "{missing}", "experiment=x"): "{missing}",
    },
    "compare": {
        (): "the following arguments are required: RUN",
        ("{run}",): "1 run to compare: name two",
        ("{sweep}",): "run to compare: name two",
        ("{run}", "{missing}"): "{missing}",
        ("{run}", "{empty}"): "{empty}",
        ("{run}", "{file}"): "{file}",
        ("{run}", "{run}", "--pictures", "few"): "argument --pictures: invalid int value: 'few'",
        ("{run}", "{run}", "--pictures", "-1"): "--pictures",
        ("{run}", "{run}", "--threshold", "high"): "invalid float value: 'high'",
        ("{run}", "{run}", "--threshold", "nan"): "--threshold",
        ("{run}", "{run}", "--threshold", "2"): "--threshold",
        ("{run}", "{run}", "--nothere"): "unrecognized arguments: --nothere",
    },
    "convert": {
        (): "the following arguments are required: their.yaml",
        ("{missing}",): "{missing}",
        ("{empty}",): "{empty}",
        ("{text}",): "{text}",
        ("{list}",): "{list}",
        ("{broken}",): "{broken}, line",
        ("{nothing}",): "multi_concept names nothing",
        ("{text}", "{text}"): "unrecognized arguments",
    },
    "export": {
        (): "the following arguments are required: RUN, TARGET",
        ("{run}",): "the following arguments are required: TARGET",
        ("{missing}", "{new}"): "{missing}",
        ("{empty}", "{new}"): "{empty}",
        ("{file}", "{new}"): "{file}",
        ("{run}", "{new}"): "{run}",
        ("{edited}", "{empty}"): "{empty} exists",
        ("{edited}", "{file}"): "{file} exists",
        ("{edited}", "{new}", "--weights", "refined"): "refined.safetensors is missing",
        ("{run}", "{new}", "--weights", "all"): "argument --weights: invalid choice: 'all'",
        ("{run}", "{new}", "--format", "onnx"): "argument --format: invalid choice: 'onnx'",
        ("{run}", "{new}", "--format", "lora", "--rank", "0"): "'0': a whole number of at least 1",
        ("{run}", "{new}", "--rank", "-3"): "argument --rank",
        ("{run}", "{new}", "--rank", "four"): "'four': a whole number of at least 1",
        ("{run}", "{new}", "--dtype", "int8"): "argument --dtype: invalid choice: 'int8'",
        ("{run}", "{new}", "--device", "gpu0"): "argument --device: invalid choice: 'gpu0'",
        ("{edited}", "{new}", "--model", "{missing}"): "{missing}",
        ("{edited}", "{new}", "--model", "{empty}"): "{empty}",
    },
    "metrics": {
        (): "the following arguments are required: RUN",
        ("{missing}",): "{missing}",
        ("{empty}",): "{empty}",
        ("{file}",): "{file}",
        ("{sweep}",): "{sweep}",
        ("{run}", "lora.rank=3"): "lora.rank=3: scores can't be measured again by it",
        ("{run}", "evaluation.threshold=2"): "evaluation.threshold = 2: at least 0 and at most 1",
        ("{run}", "evaluation.threshold=-1"): "evaluation.threshold = -1",
        ("{run}", "evaluation.threshold=high"): "evaluation.threshold = 'high'",
        ("{run}", "evaluation.threshold=.nan"): "evaluation.threshold = nan",
        ("{run}", "evaluation.threshold=true"): "evaluation.threshold = True",
        ("{run}", "evaluation.threshold="): "evaluation.threshold = None",
        ("{run}", "evaluation.threshold"): "evaluation.threshold",
        ("{run}", "evaluation.threshold=["): "evaluation.threshold=[ can't be read",
        ("{run}", "evaluation.metrics=accuracy"): "evaluation.metrics = 'accuracy': give a list",
        ("{run}", "evaluation.metrics=[1]"): "evaluation.metrics = [1]: give a list",
        ("{run}", "threshold"): "threshold: scores can't be measured again by it",
    },
    "preservation": {
        (): "the following arguments are required: build|import|show",
        ("bild",): "invalid choice: 'bild'",
        ("build",): "--to",
        BUILD: "one of the arguments --captions --names is required",
        (*BUILD, "--captions", "{text}", "--names", "{text}"): "not allowed with argument",
        (*BUILD, "--captions", "{missing}"): "{missing}",
        (*BUILD, "--captions", "{empty}"): "{empty}",
        (*BUILD, "--captions", "{blank}"): "{blank} holds none",
        (*BUILD, "--captions", "{text}", "--column", "x"): "{text} has no columns",
        (*BUILD, "--captions", "{text}", "--limit", "0"): "'0' is not a whole number above 0",
        (*BUILD, "--captions", "{text}", "--limit", "few"): "'few' is not a whole number above 0",
        (*BUILD, "--captions", "{text}", "--batch-size", "-1"): "--batch-size",
        (*BUILD, "--names", "{text}", "--kind", "persn"): "invalid choice: 'persn'",
        (*BUILD, "--names", "{text}", "--templates", "{text}"): "{text}, line 1",
        (*BUILD, "--names", "{text}", "--templates", "{missing}"): "{missing}",
        (*BUILD[:1], "--to", "{new}", "--captions", "{text}", "--model", "{missing}"): "{missing}",
        ("import", "{missing}", "--to", "{new}", "--model", "mini"): "{missing} is not a file",
        ("import", "{text}", "--to", "{new}", "--model", "mini", "--tolerance", "x"): "--tolerance",
        ("import", "{text}", "--to", "{new}", "--model", "mini", "--tolerance", "nan"): (
            "--tolerance nan: at least 0"
        ),
        ("import", "{text}", "--to", "{new}", "--model", "mini", "--tolerance=-1"): (
            "--tolerance -1: at least 0"
        ),
        ("show",): "the following arguments are required",
        ("show", "{missing}"): "{missing}",
        ("show", "{text}"): "{text}",
        ("show", "{empty}"): "{empty}",
    },
    "report": {
        (): "the following arguments are required: FOLDER",
        ("{missing}",): "{missing} is neither a run folder",
        ("{empty}",): "{empty} is neither a run folder",
        ("{file}",): "{file} is neither a run folder",
        ("--figure", "{missing}"): "{missing} is neither a run folder",
        ("--nothere", "{run}"): "unrecognized arguments: --nothere",
    },
    "rerun": {
        (): "the following arguments are required: SWEEP",
        ("{missing}",): "{missing} is not a folder",
        ("{empty}",): "{empty} is not the folder of a sweep",
        ("{file}",): "{file} is not a folder",
        ("{run}",): "{run} is the folder of one run: go on with python -m mace_exp resume=",
        ("{odd}",): "{odd}/multirun.yaml holds no overrides",
        ("{sweep}", "lora.rnak=3"): "lora.rnak: there is no such key",
        ("{sweep}", "lora"): "lora: this is not key=value",
    },
    "revise": {
        (): "the following arguments are required",
        ("add=[cat]",): "from is missing",
        ("from=", "add=[cat]"): "from is missing",
        ("from={missing}", "add=[cat]"): "from = {missing} is no run folder",
        ("from={empty}", "add=[cat]"): "from = {empty} is no run folder",
        ("from={file}", "add=[cat]"): "from = {file} is no run folder",
        ("from={sweep}", "add=[cat]"): "from = {sweep} is the folder of a sweep",
        ("from={damaged}", "add=[cat]"): "{damaged}/config.yaml",
        ("from={run}",): "nothing is to be added or dropped",
        ("from={run}", "add=[]"): "nothing is to be added or dropped",
        ("from={run}", "drop=[Nobody]"): "drop names 'Nobody', which {run} does not erase",
        ("from={run}", "add=[Amy Adams]"): "add names 'Amy Adams', which {run} erases already",
        ("from={run}", "add=[cat"): "add = [cat can't be read",
        ("from={run}", "add=[cat,cat]"): "cat",
        ("from={run}", "add=[cat]", "lora.rnak=3"): "lora.rnak",
        ("from={run}", "add=[Amy Poehler]", "lora.rank=0"): "lora.rank = 0",
        ("from={run}", "add=[cat]", "masks=nothere"): "masks=nothere",
        ("from={run}", "drop=[Amy Adams]", "seed=2"): "seed=2: nothing is left to erase",
        ("from={run}", "add=[cat]", "--nothere"): "unrecognized arguments: --nothere",
    },
}
ROWS = [(command, line) for command, lines in LINES.items() for line in lines]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the lines name, by the names in their braces."""
    root = tmp_path_factory.mktemp("doors")
    names = ("missing", "empty", "file", "run", "edited", "damaged", "sweep", "odd", "cache")
    texts = {
        "text": "a ship at sea\n",
        "blank": "\n \n",
        "list": "[1, 2]",
        "broken": "a: [\n\tb: *c",
        "nothing": "MACE: {multi_concept: [], mapping_concept: [a thing]}",
    }
    found = {name: root / name for name in (*names, "new")}
    found |= {name: root / f"{name}.txt" for name in texts}
    for name, text in texts.items():
        found[name].write_text(text)
    for name in ("empty", "damaged", "odd", "cache/locks"):
        (root / name).mkdir(parents=True)
    found["file"].write_text("x")
    write_scores(make_run(found["run"], erased=["Amy Adams"], each=1))
    make_run(found["edited"], erased=["Amy Adams"], each=1)
    (found["edited"] / "edit.safetensors").write_bytes(b"")
    model = {**dict.fromkeys(("source", "file_config", "variant")), "name": "mini"}
    model |= {"allow_download": False, "dtype": "float32", "safety_checker": True}
    facts = json.dumps({"model": model | {"fingerprint": "0"}})
    (found["edited"] / "erased.json").write_text(facts)
    (found["damaged"] / "config.yaml").write_text("a: [")
    (found["odd"] / "multirun.yaml").write_text("hydra: 3")
    make_run(found["sweep"] / "0", erased=["Amy Adams"], each=1)
    said = {"hydra": {"overrides": {"hydra": [], "task": ["seed=1,2"]}}}
    (found["sweep"] / "multirun.yaml").write_text(yaml.safe_dump(said))
    return found


@pytest.fixture
def ended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Callable[..., tuple[object, str]]:
    """Run a command; return its exit status and what it said."""

    def run(command: str, *arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        module = import_module(f"mace_exp.{command}{'.__main__' * (command in PACKAGES)}")
        try:
            status = module.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err + "\n".join(caplog.messages)

    return run


@pytest.mark.parametrize(("command", "line"), ROWS, ids=[" ".join((c, *line)) for c, line in ROWS])
def test_a_wrong_line_is_refused(
    ended: Callable[..., tuple[object, str]],
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: str,
    line: tuple[str, ...],
) -> None:
    monkeypatch.chdir(places["empty"])
    before = sorted(places["run"].parent.rglob("*"))
    status, said = ended(command, *(each.format(**places) for each in line))
    assert status == 2
    assert LINES[command][line].format(**places) in said and "Traceback" not in said
    assert sorted(places["run"].parent.rglob("*")) == before, "nothing is written"
