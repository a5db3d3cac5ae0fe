"""Several processes for one run: `torchrun --nproc-per-node=2 -m mace_exp ...`.

The first rank is the run. The others, its workers, wait for shares of what is made per concept or
per picture, each on a device of its own. They receive the configuration from the first rank, read
what they need from the cache, and write nothing but entries of the cache. Objects travel between
ranks by gloo, through accelerate: NCCL would take them through the memory of the GPUs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from mace_exp.runs.interrupts import exiting_on_signals, stay_on_sigterm

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

log = logging.getLogger(__name__)

TIMEOUT = timedelta(days=7)
"""Longer than any share: lost ranks are ended by torchrun, not by a time limit."""
_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "mace_exp/failed"
"""Key of the store that all ranks see: the message of the first rank that failed."""

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")


class RankError(RuntimeError):
    """Another rank has failed; it has shown its own traceback."""


def rank_count() -> int:
    """Return the number of processes that torchrun started for this run; 1 without torchrun."""
    launched = all(name in os.environ for name in _LAUNCH_VARIABLES)
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def is_worker() -> bool:
    """Return whether this process takes shares of the work of another, the first rank."""
    return rank_count() > 1 and int(os.environ["RANK"]) > 0


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a run; by default the only one.

    `store` is torch's key-value store: it can be read while another rank is busy or gone.
    """

    number: int = 0
    count: int = 1
    store: Store | None = None

    def map(self, task: Callable[[C, Sequence[T]], R], context: C, jobs: Sequence[T]) -> list[R]:
        """Split `jobs` among the ranks; return `task(context, share)` per share, the first rank's
        first.

        Share k is `jobs[k::count]`; for an empty one nothing is called. Task and jobs are pickled;
        each rank passes its own context. Results should be small: every rank receives all of them.

        Raises:
            RankError: a worker has failed, or is gone.
        """
        shares = [jobs[k :: self.count] for k in range(min(self.count, len(jobs)))]
        if self.count == 1 or not shares:
            return [task(context, share) for share in shares]
        self.broadcast((task, shares))
        return self._gather(self._attempt(task, context, shares[0]))[: len(shares)]

    def serve(self, context: object) -> None:
        """Do the shares that the first rank hands out, until it broadcasts None."""
        while (received := self.receive()) is not None:
            task, shares = received
            result = None
            if self.number < len(shares):
                with exiting_on_signals():
                    result = self._attempt(task, context, shares[self.number])
            self._gather(result)

    def broadcast(self, value: object) -> None:
        """Send a picklable object from the first rank to every worker."""
        self._broadcast([value])

    def receive(self) -> Any:
        """Wait for the object that the first rank broadcasts next."""
        return self._broadcast([None])[0]

    def close(self) -> None:
        """Close the connections: their threads can abort a Python process that ends with them."""
        from accelerate import PartialState

        connected.cache_clear()
        PartialState().destroy_process_group()

    def _broadcast(self, values: list[Any]) -> list[Any]:
        if self.count == 1:
            return values
        from accelerate.utils import broadcast_object_list

        with self._connection():
            return broadcast_object_list(values)

    def _gather(self, result: R) -> list[R]:
        """Return the results of all ranks in their order, on every rank."""
        from accelerate.utils import gather_object

        with self._connection():
            return gather_object([result])

    def _attempt(self, task: Callable[[C, T], R], context: C, share: T) -> R:
        """Do a share; a worker that fails reports it in the store, where the first rank reads."""
        try:
            return task(context, share)
        except SystemExit as stop:  # how SIGTERM arrives, which torchrun sends once one has failed
            if self.number == 0 and self._report() is not None:
                raise self._failure() from stop
            raise
        except Exception as error:
            if self.number > 0:
                log.exception("rank %d failed", self.number)
                self._report_failure(error)
                raise SystemExit(1) from error
            raise

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """Turn an error of the connection into one of the rank that ended; a worker just ends."""
        try:
            yield
        except RuntimeError as error:
            if self.number > 0:
                raise SystemExit(1) from error
            raise self._failure() from error

    def _report_failure(self, error: Exception) -> None:
        assert self.store is not None
        first_line = f"{type(error).__name__}: {error}".splitlines()[0]
        self.store.set(_FAILED, f"rank {self.number} failed: {first_line}")

    def _report(self) -> str | None:
        """Return what a rank that failed has reported; None where none has."""
        if self.store is None or not self.store.check([_FAILED]):
            return None
        return self.store.get(_FAILED).decode()

    def _failure(self) -> RankError:
        """Return the error of another rank, and ignore torchrun's SIGTERM until it is shown."""
        stay_on_sigterm()
        return RankError(
            self._report() or "another rank ended without a report: torchrun says below how"
        )


@cache
def connected() -> Ranks:
    """Connect to the other ranks, once per process; without torchrun there are none."""
    if rank_count() == 1:
        return Ranks()
    import torch
    from accelerate import PartialState
    from torch.distributed.rendezvous import rendezvous

    # Where it is unset, PartialState would change the number of threads of a GPU run too.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    # As on a CPU: objects go by gloo, and the device is chosen later, by the configuration.
    state = PartialState(cpu=True, backend="gloo", store=store, timeout=TIMEOUT)
    return Ranks(state.process_index, state.num_processes, store)


@contextmanager
def dismissed_workers() -> Iterator[None]:
    """Dismiss the workers when the block ends well; torchrun ends them where it fails."""
    try:
        yield
    except SystemExit as stop:
        if not stop.code:
            _dismiss()
        raise
    _dismiss()


def _dismiss() -> None:
    if rank_count() > 1:
        ranks = connected()
        ranks.broadcast(None)
        ranks.close()
