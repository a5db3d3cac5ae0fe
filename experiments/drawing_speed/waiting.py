"""Measure how OpenMP threads should wait for each other while other processes are busy.

Each setting of the environment is measured in separate processes, in alternation: they compute the
embedded model's UNet on two threads and report the median seconds of a call. Writes waiting.csv.
"""

import argparse
import csv
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).with_name("waiting.csv")
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 0": {"GOMP_SPINCOUNT": "0"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
}
CALL = """
import time, torch
from statistics import median
from mace_exp.models.loading import load_pipeline
torch.set_num_threads(2)
unet = load_pipeline(None).unet
latents = torch.randn({rows}, unet.config.in_channels, *[unet.config.sample_size] * 2)
states = torch.randn({rows}, 24, unet.config.cross_attention_dim)
seconds = []
with torch.inference_mode():
    for _ in range({calls} + 1):
        began = time.monotonic()
        unet(latents, 500, encoder_hidden_states=states, return_dict=False)
        seconds.append(time.monotonic() - began)
print(median(seconds[1:]))
"""
log = logging.getLogger(__name__)


def main() -> None:
    """Measure all settings in alternation; write and log the medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="busy processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="rows of a UNet call")
    parser.add_argument("--calls", type=int, default=5)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for count in arguments.busy:
        with busy(count):
            found: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(arguments.rounds):
                for name, setting in SETTINGS.items():
                    found[name].append(seconds(setting, arguments.rows, arguments.calls))
        rows += [[count, name, round(median(each), 3)] for name, each in found.items()]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["busy", "setting", "seconds"], *rows])
    for row in rows:
        log.info("%d busy, %s: %s s a call", *row)


def seconds(setting: dict[str, str], rows: int, calls: int) -> float:
    """Return the median seconds of a call in a process with this environment."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    code = CALL.format(rows=rows, calls=calls)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | setting,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes busy inside the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in others:
            each.terminate()
            each.wait()


if __name__ == "__main__":
    main()
