"""`python -m mace_exp.mini.train [stage ...]`: train the embedded model, stage by stage.

The stages: autoencoder, language (the text encoder), recognition (the judge), denoiser, and export,
which puts their averaged weights together as the folder that ships. Each goes on from its
checkpoint, so the recipe may take as many sittings as it needs.
"""

import argparse
import importlib
import logging
from pathlib import Path

import torch

STAGES = ("autoencoder", "language", "recognition", "denoiser", "export")
CHECKPOINTS = Path.home() / ".cache" / "mace_exp" / "mini"


def main() -> None:
    """Do the named stages (all by default) in the recipe's order."""
    parser = argparse.ArgumentParser(
        prog="python -m mace_exp.mini.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", default=list(STAGES), metavar="stage")
    parser.add_argument("--folder", type=Path, default=CHECKPOINTS, help="of the checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--restore", action="store_true", help="where a checkpoint is lost, go on from what ships"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.stages if name not in STAGES]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}: choose of {', '.join(STAGES)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    if arguments.restore:
        from mace_exp.mini.export import restore

        restore(arguments.folder)
    for name in arguments.stages:
        do(name, arguments.folder)


def do(name: str, folder: Path) -> None:
    """Train one stage to its end, or export them all."""
    module = importlib.import_module(f"mace_exp.mini.{name}")
    if name == "export":
        module.export(folder)
        return
    from mace_exp.mini.training import train

    train(module.stage(folder), folder)


if __name__ == "__main__":
    main()
