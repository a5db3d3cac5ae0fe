"""Option files of the user's folders: what they may set, and what is refused, by name."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mace_exp.cli.config_dir import keep_options
from mace_exp.config.composing import composed_run
from mace_exp.utils.yaml_files import read_plain

HEAD = "# @package _global_\n"
OBEYED: dict[str, tuple[str, str, str]] = {
    "a callback": (
        "experiment/mine",
        HEAD + "hydra: {callbacks: {x: {_target_: os.system}}}",
        "hydra.callbacks.x._target_ makes Hydra build an object",
    ),
    "a target anywhere": (
        "kept/mine",
        "defaults: [none]\nx: [{_target_: os.system}]",
        "kept.x._target_ makes Hydra build an object",
    ),
    "a log handler": (
        "experiment/mine",
        HEAD + "hydra: {job_logging: {handlers: {x: {'()': os.system}}}}",
        "hydra.job_logging.handlers.x.() tells Hydra what to do",
    ),
    "a folder": ("sweep/mine", HEAD + "hydra: {run: {dir: /}}", "hydra.run.dir tells Hydra"),
    "shell lines": (
        "experiment/mine",
        HEAD + "hydra: {launcher: {setup: [rm x]}}",
        "hydra.launcher.setup tells Hydra",
    ),
    "a cluster of others": (
        "experiment/mine",
        HEAD + "hydra: {launcher: {ray: {init: {address: 'ray://theirs:1'}}}}",
        "hydra.launcher.ray.init.address tells Hydra",
    ),
    "a secret in a launcher": (
        "experiment/mine",
        HEAD + "hydra: {launcher: {partition: '${oc.env:HOME}'}}",
        "hydra.launcher.partition tells Hydra",
    ),
    "a sweep of Hydra's keys": (
        "sweep/mine",
        HEAD + "hydra: {sweeper: {params: {+hydra.callbacks.x._target_: os.system}}}",
        "hydra.sweeper.params.+hydra.callbacks.x._target_ makes Hydra build",
    ),
    "a text for all of it": ("experiment/mine", HEAD + "hydra: ${x}", "hydra tells Hydra"),
    "a choice of Hydra's": (
        "experiment/mine",
        HEAD + "defaults: [override /hydra/job_logging: mine]",
        "hydra/job_logging chooses what Hydra does",
    ),
    "a place in Hydra": (
        "experiment/mine",
        HEAD + "defaults: [{/kept@hydra.callbacks: none}]",
        "kept@hydra.callbacks chooses what Hydra does",
    ),
    "a way out": (
        "experiment/mine",
        HEAD + "defaults: [../../other/x]",
        "../../other/x leads out of the folder",
    ),
    "a package of Hydra's": (
        "kept/mine",
        "# @package hydra.job_logging\nx: 1",
        "its package is hydra.job_logging",
    ),
    "a launcher of one's own": (
        "hydra/launcher/mine",
        "_target_: os.system",
        "hydra.launcher._target_ makes Hydra build an object",
    ),
}


def written(folder: Path, place: str, content: str | bytes) -> Path:
    file = folder / f"{place}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def compose(folder: Path, place: str) -> object:
    group, _, option = place.rpartition("/")
    return composed_run(f"hydra.searchpath=['file://{folder}']", f"{group}={option}", files=False)


MISPLACED = {
    "lora: mini": "lora = mini: it takes keys with values. An option is chosen in",
    "evaluation: 3": "evaluation = 3: it takes keys with values",
    "concepts: [a]": "concepts = ['a']: it takes keys with values",
    "overrides: x": "overrides: it takes keys with values, as in {key: value}; here is a single",
    "stages: {a: 1}": "it takes a list, in brackets; here is keys with values",
    "masks: {path: y}": "masks=attention has no such key, it is one of masks=precomputed: choose",
}


@pytest.mark.parametrize("content", MISPLACED)
def test_a_value_of_another_shape_is_named(tmp_path: Path, content: str) -> None:
    written(tmp_path, "experiment/mine", HEAD + content)
    with pytest.raises(ValueError) as refused:
        compose(tmp_path, "experiment/mine")
    assert MISPLACED[content] in str(refused.value) and "mine.yaml" in str(refused.value)


@pytest.mark.parametrize("group, key", [("evaluation", "templates"), ("masks", "path")])
def test_a_key_of_another_option_says_which(group: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"{group}=none has no such key, it is one of {group}="):
        composed_run(f"{group}=none", f"{group}.{key}=x", files=False)


@pytest.mark.parametrize("name", OBEYED)
def test_what_hydra_would_obey_is_refused_by_file_and_key(tmp_path: Path, name: str) -> None:
    place, content, said = OBEYED[name]
    file = written(tmp_path, place, content)
    with pytest.raises(ValueError) as refused:
        compose(tmp_path, place)
    assert said in str(refused.value) and str(file) in str(refused.value)


def test_who_names_the_key_on_the_command_line_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "experiment/mine", HEAD + "hydra: {job: {name: mine}}")
    monkeypatch.setattr(sys, "argv", ["mace_exp", "hydra.job.name=mine"])
    compose(tmp_path, "experiment/mine")


def test_settings_sweeps_and_launchers_are_taken(tmp_path: Path) -> None:
    content = {
        "defaults": [{"override /kept": "artist_100"}],
        "lora": {"rank": 3},
        "hydra": {
            "mode": "MULTIRUN",
            "sweeper": {"params": {"lora.rank": "1,2", "concepts": "a,b"}},
        },
    }
    written(tmp_path, "experiment/mine", "\ufeff" + HEAD + yaml.safe_dump(content))
    found = compose(tmp_path, "experiment/mine")
    assert found.lora.rank == 3, "also after a byte order mark"  # type: ignore[attr-defined]


def test_a_file_in_the_encoding_of_windows_is_read_and_kept(tmp_path: Path) -> None:
    """Files that no run reads are kept as they are, too."""
    own = tmp_path / "own"
    content = f"{HEAD}concepts: {{names: [Zoë]}}\r\n".encode("utf-16")
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_bytes(content)
    (own / "experiment" / "old.yaml").write_bytes(b"\xe9")
    config = composed_run("experiment=mine", config_dir=own, files=False)
    assert config.concepts.names == ["Zoë"]
    keep_options([SimpleNamespace(schema="file", path=str(own))], tmp_path / "run")
    kept = tmp_path / "run" / "settings"
    assert (kept / "experiment" / "mine.yaml").read_bytes() == content
    assert composed_run("experiment=mine", config_dir=kept, files=False) == config


def test_a_launcher_of_known_keys_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    written(tmp_path, "hydra/launcher/mine", "defaults: [submitit_slurm, _self_]\npartition: gpus")
    compose(tmp_path, "hydra/launcher/mine")


DAMAGED: dict[str, tuple[bytes, str]] = {
    "without its first line": (
        b"lora: {rank: 2}",
        "its first line has to be '# @package _global_'",
    ),
    "in another encoding": (HEAD.encode("utf-16-le"), "is not UTF-8 text (it holds NUL"),
    "in an old encoding": (HEAD.encode() + b"seed: '\xe9'", "is not UTF-8 text"),
    "a bomb": (
        HEAD.encode()
        + b"a0: &a0 [x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b"*a%d," % (n - 1) * 9) for n in range(1, 10)),
        "stands for more than 200000 values",
    ),
    "a circle": (HEAD.encode() + b"a: &a [*a]", "holds itself"),
    "deep": (HEAD.encode() + b"a: " + b"[" * 500, "nested more than 40 levels"),
    "three hundred thousand names": (
        HEAD.encode()
        + b"kept:\n  people:\n"
        + b"".join(b"  - Name %d\n" % n for n in range(300_000)),
        "at most 500000 are read",
    ),
    "a tag": (HEAD.encode() + b"a: !!python/object/apply:os.system [true]", "could not determine"),
    "a wrong date": (HEAD.encode() + b"seed: 2020-99-99", "month must be in 1..12"),
    "a list": (HEAD.encode() + b"[seed]", "an option file is a mapping"),
    "no YAML": (HEAD.encode() + b"a: [", "line 2"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_no_plain_data_is_named(tmp_path: Path, name: str) -> None:
    content, said = DAMAGED[name]
    file = written(tmp_path, "experiment/mine", content)
    with pytest.raises(ValueError) as refused:
        compose(tmp_path, "experiment/mine")
    assert said in str(refused.value) and str(file) in str(refused.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match="is no regular file"):
        read_plain(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("concepts: {names: [Ada,\n  007]}", 'line 3: YAML reads 007 as 7, .* "007"'),
        ("kept: {people: [1e5]}", "line 2: YAML reads 1e5 as 100000.0"),
        ("concepts: {names: [yes]}", "reads yes as True"),
        ("concepts: {names: [Ada, ]}\nkept: {people: [~]}", "line 3: YAML reads ~ as nothing"),
        ("overrides: {1984: {lora.rank: 2}}", "line 2: YAML reads 1984 as 1984, not as a text"),
        ("concepts: {kinds: {no: object}}", "reads no as False"),
    ],
)
def test_names_that_yaml_reads_as_others_are_refused_by_their_line(
    tmp_path: Path, content: str, said: str
) -> None:
    written(tmp_path, "experiment/mine", HEAD + content)
    with pytest.raises(ValueError, match=said):
        compose(tmp_path, "experiment/mine")


def test_names_of_plain_numbers_and_quoted_ones_are_read_as_they_are(tmp_path: Path) -> None:
    content = 'concepts: {names: [1984, "007", 50 Cent], kind: person}\noverrides: {"007": {}}'
    written(tmp_path, "experiment/mine", HEAD + content)
    config = composed_run("experiment=mine", config_dir=tmp_path, files=False)
    assert [each.name for each in config.concept_list()] == ["1984", "007", "50 Cent"]


def test_a_tilde_in_a_file_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    content = (
        "defaults: [{override /images: folder}, {override /masks: none}]\n"
        "images: {path: ~/photos}\ncache_dir: ~/c\nmodel: {source: ~}\n"
        "concepts: {names: [~x~, Ada]}\noverrides: {Ada: {images.path: ~/ada}}"
    )
    written(tmp_path, "experiment/mine", HEAD + content)
    config = composed_run("experiment=mine", config_dir=tmp_path, files=False)
    assert config.images.path == "/home/ada/photos"  # type: ignore[attr-defined]
    assert (config.cache_dir, config.model.source) == ("/home/ada/c", None)
    assert config.overrides["Ada"]["images.path"] == "/home/ada/ada"
    assert config.concepts.names == ["~x~", "Ada"]
