"""Several processes for one run: `torchrun --nproc-per-node=2 -m mace_exp ...`.

Rank 0 executes the run. The other ranks, its workers, compute shares of the work per concept or per
picture, each on a separate device. They receive the configuration from rank 0, read their inputs
from the cache, and write cache entries only. Objects are sent between ranks by gloo, through
accelerate: NCCL would copy them through GPU memory.
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
"""Longer than any share takes: torchrun ends the ranks after a failure, not a timeout."""
_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "mace_exp/failed"
"""Key in the shared store: the error message of a failed rank."""

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")


class RankError(RuntimeError):
    """Another rank has failed, and has logged its traceback."""


def rank_count() -> int:
    """Return the number of processes that torchrun started for this run; 1 without torchrun."""
    launched = all(name in os.environ for name in _LAUNCH_VARIABLES)
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def is_worker() -> bool:
    """Return whether this process is a worker of rank 0."""
    return rank_count() > 1 and int(os.environ["RANK"]) > 0


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and the number of ranks; by default a single process.

    `store` is torch's key-value store: it can be read while another rank is busy or has ended.
    """

    number: int = 0
    count: int = 1
    store: Store | None = None

    def map(self, task: Callable[[C, Sequence[T]], R], context: C, jobs: Sequence[T]) -> list[R]:
        """Split `jobs` among the ranks; return `task(context, share)` per share, rank 0's first.

        Share k is `jobs[k::count]`; the task is not called for empty shares. Task and jobs are
        pickled; each rank passes its own context. Results should be small: every rank receives all
        of them.

        Raises:
            RankError: a worker has failed or ended.
        """
        shares = [jobs[k :: self.count] for k in range(min(self.count, len(jobs)))]
        if self.count == 1 or not shares:
            return [task(context, share) for share in shares]
        self.broadcast((task, shares))
        return self._gather(self._attempt(task, context, shares[0]))[: len(shares)]

    def serve(self, context: object) -> None:
        """Compute the shares that rank 0 assigns, until it broadcasts None."""
        while (received := self.receive()) is not None:
            task, shares = received
            result = None
            if self.number < len(shares):
                with exiting_on_signals():
                    result = self._attempt(task, context, shares[self.number])
            self._gather(result)

    def broadcast(self, value: object) -> None:
        """Send a picklable object from rank 0 to every worker."""
        self._broadcast([value])

    def receive(self) -> Any:
        """Wait for the next object that rank 0 broadcasts."""
        return self._broadcast([None])[0]

    def close(self) -> None:
        """Close the connections: their threads can abort the Python process at its exit."""
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
        """Compute a share; a worker that fails reports it in the store, which rank 0 reads."""
        try:
            return task(context, share)
        except SystemExit as stop:  # SIGTERM, which torchrun sends after a rank has failed
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
        """Turn a connection error into `RankError`, with the message of the failed rank; a worker
        exits."""
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
        """Return the error message of a failed rank; None if there is none."""
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

    # If it is unset, PartialState would change the number of threads of GPU runs, too.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    # cpu=True: objects are sent by gloo, and the configuration chooses the device later.
    state = PartialState(cpu=True, backend="gloo", store=store, timeout=TIMEOUT)
    return Ranks(state.process_index, state.num_processes, store)


@contextmanager
def dismissed_workers() -> Iterator[None]:
    """Dismiss the workers when the block succeeds; torchrun ends them after a failure."""
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
