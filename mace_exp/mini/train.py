"""`python -m mace_exp.mini.train [stage ...]`: train the embedded model, stage by stage, from
nothing."""

import argparse
import logging
from pathlib import Path

import torch

STAGES = ("autoencoder", "language", "recognition", "denoiser")


def main() -> None:
    """Train the named stages (all by default) in the recipe's order, going on where the
    checkpoints stand."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.mini.train", description=__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.home() / ".cache" / "mace_exp" / "mini",
        help="checkpoints",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    for name in arguments.stages:
        if name not in STAGES:
            parser.error(f"no stage {name!r}: choose of {', '.join(STAGES)}")
        import importlib

        from mace_exp.mini.training import train

        module = importlib.import_module(f"mace_exp.mini.{name}")
        train(module.stage(arguments.folder), arguments.folder)


if __name__ == "__main__":
    main()
