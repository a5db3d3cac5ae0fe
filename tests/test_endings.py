"""How commands end by signals, and where streams or the working folder are gone."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mace_exp.cli.ending import ended


def in_process(code: str, **more: object) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], **(pipes | more))  # type: ignore[call-overload]


WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from mace_exp.cli.ending import ended
with ended("mace_exp"):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
"""


@pytest.mark.parametrize(
    "number, name",
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_signals_end_a_command_in_one_line(number: int, name: str) -> None:
    process = in_process(WAITS)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and out == "closed\n"
    assert error == f"mace_exp: stopped by {name}\n"


INTERRUPTED_LIBRARY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from mace_exp.cli.common import run_command
def library():
    try:
        print("begun", flush=True)
        time.sleep(60)
    except BaseException:
        raise ERROR("half of it was done")
sys.exit(run_command("mace_exp", library))
"""


@pytest.mark.parametrize("error", ["ValueError", "AttributeError"])
@pytest.mark.parametrize(
    "number, name",
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_is_not_mistaken_for_what_a_library_makes_of_it(
    number: int, name: str, error: str
) -> None:
    """OmegaConf, interrupted while it composes, fails to restore what it had changed."""
    process = in_process(INTERRUPTED_LIBRARY.replace("ERROR", error))
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + number, f"mace_exp: stopped by {name}\n")


@pytest.mark.parametrize(
    "command, works",
    [
        ("__main__", "mace_exp.cli.refusal.refuse_early"),
        ("attack", "mace_exp.attack.attack"),
        ("cache", "mace_exp.cache.tend"),
        ("check.__main__", "mace_exp.check.__main__.expand"),
        ("compare", "mace_exp.compare.compared"),
        ("convert", "mace_exp.convert.read"),
        ("export", "mace_exp.export.export"),
        ("metrics", "mace_exp.metrics.remeasure"),
        ("preservation.__main__", "mace_exp.preservation.statistics.read_statistics"),
        ("report.__main__", "mace_exp.report.__main__.report"),
        ("revise", "mace_exp.cli.revision.read_revision"),
    ],
)
def test_ctrl_c_ends_every_command_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, works: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = {
        "attack": ["run=x", "attack=completion"],
        "preservation.__main__": ["show", "x"],
        "export": ["x", "y"],
        "cache": ["."],
    }
    module = import_module(f"mace_exp.{command}")
    monkeypatch.setattr(works, interrupted)
    monkeypatch.setattr(sys, "argv", ["x", *arguments.get(command, ["x"])])
    with pytest.raises(SystemExit) as stop:
        module.main()
    said = capsys.readouterr().err
    assert stop.value.code == 130 and said.count("\n") == 1 and "stopped by Ctrl-C" in said


@pytest.mark.parametrize("module", ["__main__", "check.__main__", "metrics", "export", "revise"])
def test_a_working_folder_that_was_removed_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    *,
    tmp_path: Path,
    module: str,
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    command = import_module(f"mace_exp.{module}")
    given = {"export": ["x", "y"], "metrics": ["x"], "revise": ["from=x", "add=[cat]"]}
    monkeypatch.setattr(sys, "argv", ["x", *given.get(module, ["lora.rank=2"])])
    try:
        status = command.main()
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err + caplog.text
    assert status == 2 and "was removed: change to another (cd)" in said


def test_nohup_is_kept() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended("x"):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_a_command_is_imported_is_said(name: str) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    code += "import sys; sys.argv = ['-m']; import mace_exp; sys.argv = ['x']\n"
    process = in_process(f"{code}signal.raise_signal(signal.{name})")
    _, error = process.communicate(timeout=60)
    assert error == f"mace_exp: stopped by {name}\n"
    assert process.returncode == 128 + getattr(signal, name)


def test_ctrl_c_while_a_command_is_imported_shows_no_traceback() -> None:
    code = (
        "import sys; sys.argv = ['-m']; import mace_exp; sys.argv = ['x']\nraise KeyboardInterrupt"
    )
    process = in_process(code)
    _, error = process.communicate(timeout=60)
    assert error == "mace_exp: stopped by Ctrl-C\n" and process.returncode != 0


def test_who_reads_no_further_makes_no_error() -> None:
    code = (
        "from mace_exp.cli.ending import ended\n"
        "with ended('x'):\n"
        "    for _ in range(20000): print('a line that nobody reads \\ud800')\n"
    )
    process = in_process(code)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_output_that_has_no_room_is_told(stream: str) -> None:
    code = (
        "import sys\n"
        "from mace_exp.cli.ending import ended\n"
        "with ended('x'):\n"
        f"    for _ in range(20000): print('a line', file=sys.{stream})\n"
    )
    with open("/dev/full", "w") as full:
        process = in_process(code, **{stream: full})
        out, said = process.communicate(timeout=60)
    if stream == "stderr":
        assert process.returncode == 0
        return
    assert process.returncode == 1, "what is lost may be what the command is for"
    assert said.count("\n") == 1 and "can't be stored, and is left out: [Errno 28]" in said


def test_a_terminal_that_is_gone_ends_no_run() -> None:
    terminal, inner = os.openpty()
    code = "from mace_exp.cli.ending import ended\nwith ended('x'):\n"
    code += "    print('begun', flush=True); input()\n    for _ in range(99): print('more')\n"
    process = in_process(code, stdin=subprocess.PIPE, stdout=inner)
    os.close(inner)
    assert os.read(terminal, 5) == b"begun"
    os.close(terminal)
    _, said = process.communicate("\n", timeout=60)
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    code = (
        "import sys; from mace_exp.cli.ending import ended\n"
        "with ended('x'):\n"
        "    sys.stdout.write('out'); sys.stderr.write('error'); sys.exit(2)\n"
    )
    command = f'exec {sys.executable} -c "{code}" {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    left = {">&-": ("", "error"), "2>&-": ("out", "")}.get(closed, ("", ""))
    assert (done.returncode, done.stdout, done.stderr) == (2, *left)
