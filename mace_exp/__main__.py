"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import sys

from mace_exp.cli.ending import ended
from mace_exp.utils.threads import limit_spinning


def main() -> None:
    """Run the command. A refused command prints one message to stderr and exits with status 2."""
    from mace_exp.runs.ranks import is_worker

    limit_spinning()
    with ended("mace_exp", said=not is_worker()):
        _main(is_worker())


def _main(worker: bool) -> None:
    from mace_exp.cli.help import answer

    said = answer(sys.argv[1:])
    if said:
        sys.stdout.write("" if worker else said)
    elif worker:
        from mace_exp.pipeline import take_part  # imports torch

        take_part()
    else:
        from mace_exp.cli.refusal import refuse_early

        refuse_early(sys.argv[1:])
        from mace_exp.cli.job import run  # imports Hydra

        run(sys.argv[1:])


if __name__ == "__main__":
    main()
