"""The run record, and Weights & Biases read back through its own offline reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mace_exp.runs.record import Picture, read_rows
from mace_exp.runs.tracking import TrackerOptions, open_tracker, resolve_mode
from tests.wandb_reader import READ_SECONDS, overview, records


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


OFFLINE = TrackerOptions(
    mode="offline", project="erasure", group="sweep-1", tags=("celebrity_10", "x" * 90), name="one"
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with two concepts, tracked offline."""
    run_dir = tmp_path_factory.mktemp("run")
    grey = np.full((12, 12, 3), 128, np.uint8)
    with open_tracker(
        run_dir, OFFLINE, config={"lora": {"rank": 4}, "path": run_dir}, concept_count=2
    ) as tracker:
        tracker.log("stage", {"stage": "images", "seconds": 2.5, "reused": False})
        for concept in ("adam-driver", "adriana-lima"):
            for step in range(3):
                values = {"lora/loss": 3.0 - step, "lora/grad_norm": np.float32(0.5)}
                tracker.log("lora", {"concept": concept, **values}, step)
        tracker.images("samples/erased", [Picture(grey, "a photo of <b> · seed 1 · before")])
        tracker.table("metrics", ["part", "accuracy"], [["erased", 0.02]])
        tracker.summary({"erased": {"accuracy": {"value": 0.02}}, "harmonic_mean": 0.97})
    return run_dir


def test_rows_hold_time_event_and_values(logged: Path) -> None:
    rows = read_rows(logged / "metrics.jsonl")
    assert [row["event"] for row in rows[:2]] == ["stage", "lora"]
    assert rows[1]["lora/step"] == 0 and rows[1]["concept"] == "adam-driver"
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert {"images", "table", "summary", "end"} <= {row["event"] for row in rows}


def test_offline_run_carries_names_and_configuration(logged: Path) -> None:
    (run,) = records(logged, "run")
    assert (run["project"], run["run_group"], run["display_name"]) == (
        "erasure",
        "sweep-1",
        "one",
    )
    assert run["tags"] == ["celebrity_10", "x" * 64]
    assert run["config"]["update"]["lora"] == {"rank": 4}


def test_offline_run_has_its_own_step_axis(logged: Path) -> None:
    metrics = records(logged, "metric")
    assert {"lora/*": "lora/step"}.items() <= {
        metric.get("glob_name"): metric.get("step_metric") for metric in metrics
    }.items()


def test_offline_run_has_a_curve_per_concept(logged: Path) -> None:
    items = [record["item"] for record in records(logged, "history")]
    curve = [i["lora/loss/adam-driver"] for i in items if "lora/loss/adam-driver" in i]
    assert curve == [3, 2, 1]
    median = [(i["lora/step"], i["lora/loss/median"]) for i in items if "lora/loss/median" in i]
    assert median == [(0, 3), (1, 2), (2, 1)]


def test_offline_run_has_pictures_tables_and_summary(logged: Path) -> None:
    summary = overview(logged)["summary"]
    pictures = summary["samples/erased"] if "samples/erased" in summary else summary["samples"]
    assert pictures["captions"] == ["a photo of <b> · seed 1 · before"]
    assert summary["erased/accuracy/value"] == 0.02 and summary["harmonic_mean"] == 0.97
    assert summary["stage/images/seconds"] == 2.5
    assert summary["lora/final_loss"] == 1
    assert summary["metrics"]["nrows"] == 1 and summary["lora/concepts"]["nrows"] == 2


def test_finished_run_is_closed_as_finished(logged: Path) -> None:
    found = overview(logged)
    assert (found["state"], found["exit_code"]) == ("finished", 0)


def test_run_data_stay_in_the_run_folder(logged: Path) -> None:
    assert {path.name for path in logged.iterdir()} == {"metrics.jsonl", "wandb"}
    assert "WANDB_DATA_DIR" not in os.environ


def test_many_concepts_make_a_table_and_no_panels(tmp_path: Path) -> None:
    with open_tracker(tmp_path, OFFLINE, concept_count=100) as tracker:
        for index in range(100):
            tracker.log("lora", {"concept": f"c{index}", "lora/loss": index / 2}, 0)
    keys = {key for r in records(tmp_path, "history") for key in r["item"] if key[0] != "_"}
    assert {key.split(".")[0] for key in keys} == {
        "lora/step",
        "lora/concepts",
        "lora/loss/low",
        "lora/loss/median",
        "lora/loss/high",
    }
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 101


def test_failed_job_is_closed_and_the_next_one_is_its_own_run(tmp_path: Path) -> None:
    for name, error in (("first", ValueError("no space left")), ("second", None)):
        try:
            with open_tracker(tmp_path / name, OFFLINE) as tracker:
                tracker.log("probe", {"probe/value": 1.0})
                if error:
                    raise error
        except ValueError:
            pass
    assert overview(tmp_path / "first")["exit_code"] == 1
    assert overview(tmp_path / "first")["state"] == "failed"
    assert overview(tmp_path / "second")["state"] == "finished"
    last = read_rows(tmp_path / "first" / "metrics.jsonl")[-1]
    assert last["event"] == "end" and "no space left" in last["error"]


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
from pathlib import Path
from mace_exp.runs.tracking import TrackerOptions, open_tracker
with open_tracker(Path(sys.argv[1]), TrackerOptions(mode="offline", project="p")) as tracker:
    tracker.log("probe", {"probe/value": 1.0})
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signalled_run_is_closed_with_its_code(tmp_path: Path, sent: int, code: int) -> None:
    """The whole process group gets the signal, as it does from a terminal or a scheduler."""
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, sent)
        process.wait(timeout=READ_SECONDS)
    assert process.returncode in (code, -sent)
    found = overview(tmp_path)
    assert (found["state"], found["exit_code"]) == ("failed", code)
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["exit_code"] == code


def test_killed_run_keeps_its_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(2.5)  # the flush interval is a second
        process.kill()
    assert [row["event"] for row in read_rows(tmp_path / "metrics.jsonl")] == ["probe"]
    assert records(tmp_path, "history")[0]["item"]["probe/value"] == 1


def test_unreachable_server_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with open_tracker(tmp_path, TrackerOptions(mode="auto", project="p")) as tracker:
        tracker.log("probe", {"probe/value": 1.0})
        assert tracker.url is None
    assert "can't be reached" in caplog.text and "offline" in caplog.text
    assert overview(tmp_path)["state"] == "finished"


def test_broken_service_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("mace_exp.runs.tracking.start_wandb", refuse)
    with open_tracker(tmp_path, OFFLINE) as tracker:
        tracker.log("probe", {"probe/value": 1.0})
    assert "out of order" in caplog.text
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 2


def test_disabled_keeps_the_record_alone(tmp_path: Path) -> None:
    with open_tracker(tmp_path, TrackerOptions(mode="disabled")) as tracker:
        tracker.images("samples", [Picture(tmp_path / "absent.png", "a caption")])
        tracker.artifact(tmp_path, name="edit", kind="model")
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl"}
    assert read_rows(tmp_path / "metrics.jsonl")[0]["captions"] == ["a caption"]


def test_a_rank_left_over_in_the_environment_silences_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters set it for jobs of one process; the workers of torchrun open no tracker."""
    monkeypatch.setenv("RANK", "1")
    with open_tracker(tmp_path, TrackerOptions(mode="disabled")) as tracker:
        tracker.log("probe", {"probe/value": 1.0})
    assert read_rows(tmp_path / "metrics.jsonl")[0]["event"] == "probe"


def test_sigterm_handler_is_put_back_and_others_are_left_alone(tmp_path: Path) -> None:
    def other(*_: object) -> None: ...

    disabled = TrackerOptions(mode="disabled")
    with open_tracker(tmp_path, disabled):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, other)
    try:
        with open_tracker(tmp_path, disabled):
            assert signal.getsignal(signal.SIGTERM) is other
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_mode_follows_the_key_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    assert resolve_mode("offline") == "offline"


@pytest.mark.parametrize(
    ("machine", "environment", "settings", "mode"),
    [
        ("api.wandb.ai", {}, "", "online"),
        ("elsewhere.org", {}, "", "offline"),
        ("own.org:8080", {"WANDB_BASE_URL": "http://own.org:8080"}, "", "online"),
        ("api.wandb.ai", {"WANDB_BASE_URL": "http://own.org:8080"}, "", "offline"),
        ("own.org", {}, "[default]\nbase_url = https://own.org\n", "online"),
        ("own.org", {}, "no settings at all", "offline"),
    ],
)
def test_a_key_that_wandb_login_left_is_found(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    machine: str,
    environment: dict[str, str],
    settings: str,
    mode: str,
) -> None:
    """Where wandb itself looks; the file of the server's address is `wandb login --host`'s."""
    key = tmp_path / "netrc"
    key.write_text(f"machine {machine}\n  login user\n  password {'0' * 40}\n")
    key.chmod(0o600)
    (tmp_path / "settings").write_text(settings)
    environment |= {"NETRC": str(key), "WANDB_CONFIG_DIR": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolve_mode("auto") == mode


def test_a_key_in_the_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_mode("auto") == "offline"
    (tmp_path / "_netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "_netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    (tmp_path / ".netrc").write_text("machine what is this\n")
    assert resolve_mode("auto") == "offline"


def test_a_run_that_stays_offline_says_how_to_send_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with open_tracker(tmp_path, OFFLINE) as tracker:
        tracker.log("probe", {"probe/value": 1.0})
    (told,) = [text for text in caplog.messages if "wandb sync" in text]
    folder = Path(told.split("`")[1].removeprefix("wandb sync "))
    assert folder.parent == tmp_path / "wandb" and list(folder.glob("*.wandb"))


def test_missing_wandb_is_named_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_mode("auto") == "disabled"
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        resolve_mode("online")
