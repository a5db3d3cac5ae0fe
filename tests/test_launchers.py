"""Where the jobs of a sweep run: Slurm, with stand-ins for its commands, and Ray on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mace_exp.config.options import register
from mace_exp.models.saving import save_pipeline
from mace_exp.utils.conf import CONF
from tests.tiny import tiny_pipeline
from tests.whole_run import SMALL

ROOT = Path(__file__).parents[1]
SHORT = ("concepts=[Adam Driver]", "images.per_concept=1", "stages=[fusion],[images]")

SBATCH = """#!{python}
# Keeps the script, and runs its tasks at once, each again for as long as it is put in the queue.
import os, re, subprocess, sys
from pathlib import Path

here, text = Path(__file__).parent, Path(sys.argv[-1]).read_text()
(here / "submitted.sh").write_text(text)
last = int(re.search(r"--array='?0-(\\d+)", text)[1])
again = "while :; do ( {{}} ); [ -e {{}} ] || break; rm {{}}; done"
for task in range(last + 1):
    queued = here / f"requeue-77_{{task}}"
    (here / f"command-{{task}}.sh").write_text(text.split("# command")[1])
    os.environ |= {{
        "SLURM_JOB_ID": str(77 + task), "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(task), "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "here", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }}
    run = again.format(f"bash {{here}}/command-{{task}}.sh", queued, queued)
    with open(here / f"log-{{task}}", "w") as log:
        subprocess.Popen(["bash", "-c", run], stdout=log, stderr=log, start_new_session=True)
print("Submitted batch job 77")
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SACCT = "#!/bin/bash\necho 'JobID|State|NodeList'\n"
SCONTROL = """#!/bin/bash
[ "$1" = requeue ] && touch "$(dirname "$0")/requeue-$2"
"""
PREEMPTED = """
# Python runs this first: the cluster takes the node away from the second job, once.
import os, signal, threading, time
from pathlib import Path

here = Path(__file__).parent

def preempt():
    status = here / "swept" / "1" / "status.json"
    while not status.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGUSR2)

if os.environ.get("SLURM_ARRAY_TASK_ID") == "1" and not (here / "preempted").exists():
    (here / "preempted").touch()
    threading.Thread(target=preempt, daemon=True).start()
"""


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose Slurm is the stand-ins above."""
    scripts = {"sbatch": SBATCH.format(python=sys.executable), "srun": SRUN}
    scripts |= {"sacct": SACCT, "scontrol": SCONTROL}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(PREEMPTED)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "OMP_NUM_THREADS": "1",
    }


def sweep(folder: Path, launcher: str, *more: str, env: dict[str, str]) -> tuple[int, str]:
    """Sweep over a stage whose input is missing and one that runs; return exit code and output."""
    if not (folder / "model").exists():
        save_pipeline(tiny_pipeline(), folder / "model")
    model = ["model=path", f"model.source={folder / 'model'}", f"cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "mace_exp", "-m", f"hydra/launcher={launcher}", *more]
    done = subprocess.run(
        [*command, *model, *SMALL, *SHORT, f"hydra.sweep.dir={folder / 'swept'}"],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, done.stdout + done.stderr


def told(folder: Path) -> list[str]:
    files = [folder / "swept" / str(number) / "status.json" for number in range(2)]
    return [json.loads(file.read_text())["status"] for file in files]


def test_slurm_runs_the_jobs_and_takes_up_again_what_it_preempted(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    more = ("hydra.launcher.partition=gpus", "hydra.launcher.timeout_min=90")
    code, said = sweep(tmp_path, "slurm", *more, env=cluster)
    assert code == 1 and told(tmp_path) == ["failed", "finished"], said
    assert "1 of 2 jobs finished" in said
    failed = (tmp_path / "swept" / "0" / "status.json").read_text()
    assert "add cfr, which makes them, to stages" in failed
    assert (tmp_path / "swept" / "report.html").is_file()
    headers = (tmp_path / "submitted.sh").read_text()
    for flag in ("partition=gpus", "gpus-per-node=1", "time=90", "cpus-per-task=8", "mem=32GB"):
        assert f"#SBATCH --{flag}\n" in headers
    assert "#SBATCH --signal=USR2@120" in headers and "#SBATCH --array=0-1%2" in headers
    assert (tmp_path / "preempted").exists() and not list(tmp_path.glob("requeue-*"))
    outcome = (tmp_path / "swept" / "1" / "run.log").read_text()
    assert "failed" not in outcome


@pytest.mark.slow
def test_ray_runs_the_jobs(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="no extra `ray`")
    more = ("hydra.launcher.ray.remote.num_gpus=0", "hydra.launcher.ray.remote.num_cpus=1")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    # A process of its own for each job would import torch once more.
    more += ("hydra.launcher.ray.remote.max_calls=0", "+hydra.launcher.ray.init.num_cpus=1")
    code, said = sweep(tmp_path, "ray_gpu", *more, env=env)
    assert code == 1 and told(tmp_path) == ["failed", "finished"], said
    assert "1 of 2 jobs finished" in said
    assert (tmp_path / "swept" / "1" / "config.yaml").is_file()
    assert (tmp_path / "swept" / "report.html").is_file()


def test_ray_gives_each_job_a_gpu_of_its_own() -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="no extra `ray`")
    launcher = composed("hydra/launcher=ray_gpu").hydra.launcher
    assert (launcher.ray.remote.num_gpus, launcher.ray.remote.max_calls) == (1, 1)
    size = launcher.ray.init.get("object_store_memory", "the launcher's own")
    assert size is None, "a cluster that runs already takes no size"


@pytest.mark.parametrize(("option", "extra"), [("slurm", "slurm"), ("ray_gpu", "ray")])
def test_a_launcher_that_is_not_installed_names_its_extra(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, *, option: str, extra: str
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("mace_exp.cli.arguments.version", missing)
    said = refusal("-m", f"hydra/launcher={option}", "seed=1,2")
    assert f"pip install 'mace-exp[{extra}]'" in said


def test_a_typo_in_a_launchers_setting_is_refused(refusal: Callable[..., str]) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    said = refusal("-m", "hydra/launcher=slurm", "hydra.launcher.partitoin=gpus", "seed=1,2")
    assert "hydra.launcher.partitoin: there is no such key. Did you mean" in said
