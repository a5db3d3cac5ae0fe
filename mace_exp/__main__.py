"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import sys

from mace_exp.cli.help import answer
from mace_exp.runs.ranks import is_worker


def main() -> None:
    """Run the command. A refused command prints one message to stderr and exits with status 2."""
    said = answer(sys.argv[1:])
    if said:
        sys.stdout.write("" if is_worker() else said)
    elif is_worker():
        from mace_exp.pipeline import take_part  # imports torch

        take_part()
    else:
        from mace_exp.cli.job import run  # imports Hydra

        run(sys.argv[1:])


if __name__ == "__main__":
    main()
