"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import sys

from mace_exp.runs.ranks import is_worker


def main() -> None:
    """Run the command; one that is refused ends with one message on stderr and exit status 1."""
    if is_worker():
        from mace_exp.pipeline import take_part  # imports torch

        take_part()
    elif "--version" in sys.argv[1:]:
        from mace_exp.cli.arguments import version_line

        sys.stdout.write(f"{version_line()}\n")
    else:
        from mace_exp.cli.job import run  # imports Hydra

        run(sys.argv[1:])


if __name__ == "__main__":
    main()
