"""How a refused command ends, without Hydra: one message on stderr, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mace_exp.config.early import unknown_keys, unknown_options, wrong_numbers
from mace_exp.runs.ranks import rank_count
from mace_exp.utils.files import is_out_of_room
from mace_exp.utils.texts import shown


class Refusal(SystemExit):
    """Ends a command with a message instead of a traceback; exit status 2 if no run was started, 1
    if a run has failed, or the disk is full."""

    def __init__(self, error: Exception, *, begun: bool = False) -> None:
        super().__init__(f"mace_exp: {_explained(error)}")
        full = isinstance(error, OSError) and is_out_of_room(error)
        self.code = 1 if begun or full else 2
        self.error = error


def _explained(error: Exception) -> str:
    if type(error) is ValueError:
        return str(error)
    from mace_exp.config.refusals import explain  # imports Hydra

    return explain(error)


def refuse_early(arguments: Sequence[str]) -> None:
    """Refuse unknown keys, unknown options and wrong numbers before Hydra is imported.

    Under torchrun this is left to the first rank's composition: the other ranks wait for it.
    """
    if rank_count() > 1:
        return
    found = (list(find(arguments)) for find in (unknown_keys, unknown_options, wrong_numbers))
    problems = next(filter(None, found), [])
    if problems:
        end(Refusal(ValueError("\n".join(problems))))


def end(refusal: Refusal) -> None:
    """Print the message of a refusal and exit; with HYDRA_FULL_ERROR=1 raise its error."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise refusal.error from None
    sys.stderr.write(f"{shown(str(refusal))}\n")
    raise refusal
