"""Train the embedded model, stage by stage.

The stages are autoencoder, language (the text encoder), judge, denoiser, and export, which
assembles their averaged weights into the folder that ships. Each stage resumes from its checkpoint,
so the training can be interrupted at any time.
"""

import argparse
import importlib
import logging
from pathlib import Path

import torch

from experiments.mini_world.training import CHECKPOINTS, train

MODULES = {
    "autoencoder": "autoencoder",
    "language": "language",
    "judge": "train_judge",
    "denoiser": "denoiser",
    "export": "export",
}
"""Stages in the order of the recipe, and the module of each."""


def main() -> None:
    """Run the named stages, or all of them, in the order given."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    if arguments.restore:
        from experiments.mini_world.export import restore

        restore(arguments.folder)
    for name in arguments.stages:
        run_stage(name, arguments.folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mini_world.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", default=list(MODULES), metavar="stage")
    parser.add_argument("--folder", type=Path, default=CHECKPOINTS, help="folder of checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--restore", action="store_true", help="first write missing checkpoints from what ships"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.stages if name not in MODULES]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}: choose from {', '.join(MODULES)}")
    return arguments


def run_stage(name: str, folder: Path) -> None:
    """Train one stage to its end, or export all of them."""
    module = importlib.import_module(f"experiments.mini_world.{MODULES[name]}")
    if name == "export":
        module.export(folder)
    else:
        train(module.stage(folder), folder)


if __name__ == "__main__":
    main()
