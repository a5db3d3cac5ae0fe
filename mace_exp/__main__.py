"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import sys

from mace_exp.cli.help import answer
from mace_exp.runs.ranks import is_worker
from mace_exp.utils.pipes import closed_pipe_ends
from mace_exp.utils.threads import limit_spinning


def main() -> None:
    """Run the command. A refused command prints one message to stderr and exits with status 2."""
    limit_spinning()
    with closed_pipe_ends():
        _answer_or_run()


def _answer_or_run() -> None:
    said = answer(sys.argv[1:])
    if said:
        sys.stdout.write("" if is_worker() else said)
    elif is_worker():
        from mace_exp.pipeline import take_part  # imports torch

        take_part()
    else:
        from mace_exp.cli.refusal import refuse_unknown_keys

        refuse_unknown_keys(sys.argv[1:])
        from mace_exp.cli.job import run  # imports Hydra

        run(sys.argv[1:])


if __name__ == "__main__":
    main()
