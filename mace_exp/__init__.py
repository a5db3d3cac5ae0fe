"""Mass concept erasure for text-to-image diffusion models.

    from mace_exp import erase

    erase(pipeline, ["Adam Driver"], anchor="a person")

`python -m mace_exp` is the command line; docs/python_api.md describes the function.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mace_exp.api import Erasure as Erasure
    from mace_exp.api import erase as erase

if sys.argv[:1] == ["-m"]:  # `python -m mace_exp...` imports this first: Ctrl-C meanwhile
    from mace_exp.cli.ending import end_on_interrupts

    end_on_interrupts()

__all__ = ["Erasure", "erase"]


def __getattr__(name: str) -> Any:
    """Import torch lazily: the command line reports mistakes without it."""
    if name in __all__:
        from mace_exp import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
