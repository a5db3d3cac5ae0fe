"""Several processes for one run: `torchrun --nproc-per-node=2 -m mace_exp ...`.

The first rank is the run. The others, its workers, wait for shares of what is made concept by
concept or picture by picture, each on a device of its own. They get the configuration from the
first, read what they need from the cache, and write nothing but entries of the cache. What
travels between ranks (settings, the fused weights, pictures) goes by gloo, whatever the devices.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from mace_exp.runs.interrupts import exiting_on_sigterm, stay_on_sigterm

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)
"""How long a rank waits for another's share: torchrun, and not a time limit, ends what is lost."""
_CONTRACT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "mace_exp/failed"
"""Key of the store that all ranks see: what the first that failed has to say."""

W = TypeVar("W")
T = TypeVar("T")
R = TypeVar("R")


class RankError(RuntimeError):
    """Another rank has failed; it has shown its own traceback."""


def rank_count() -> int:
    """The number of processes of this run, as torchrun says it; 1 without it."""
    told = all(name in os.environ for name in _CONTRACT)
    return int(os.environ["WORLD_SIZE"]) if told else 1


def is_worker() -> bool:
    """Whether another rank is the run, and this process takes shares of its work."""
    return rank_count() > 1 and int(os.environ["RANK"]) > 0


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a run; alone where nothing else is said.

    `store` is torch's key-value store: it can be read while another rank is busy or gone.
    """

    number: int = 0
    count: int = 1
    store: Any = None

    def map(self, task: Callable[[W, Sequence[T]], R], work: W, items: Sequence[T]) -> list[R]:
        """Split `items` among the ranks; return what `task` said of each share, the first's first.

        Share k is `items[k::count]`, empty ones are left out. `task` and items are pickled; a rank
        calls it with its own `work`.

        Raises:
            RankError: a worker has failed, or is gone.
        """
        shares = [items[k :: self.count] for k in range(min(self.count, len(items)))]
        if self.count == 1 or not shares:
            return [task(work, share) for share in shares]
        self.broadcast((task, shares))
        return self._gather(self._attempt(task, work, shares[0]))[: len(shares)]

    def serve(self, work: object) -> None:
        """Do the shares that the first rank hands out, until it says that there are no more."""
        while (heard := self.receive()) is not None:
            task, shares = heard
            done = None
            if self.number < len(shares):
                with exiting_on_sigterm():
                    done = self._attempt(task, work, shares[self.number])
            self._gather(done)

    def broadcast(self, said: object) -> None:
        """Send every worker an object that pickle takes."""
        self._broadcast([said])

    def receive(self) -> Any:
        """Wait for what the first rank tells."""
        box: list[Any] = [None]
        self._broadcast(box)
        return box[0]

    def close(self) -> None:
        """Close the connections; nobody is heard any more. Threads of theirs that are still there
        when Python ends can abort the process."""
        import torch.distributed as dist

        connected.cache_clear()
        dist.destroy_process_group()

    def _broadcast(self, box: list[Any]) -> None:
        import torch.distributed as dist

        if self.count > 1:
            with self._connection():
                dist.broadcast_object_list(box, src=0)

    def _gather(self, done: R) -> list[R]:
        import torch.distributed as dist

        gathered: list[Any] = [None] * self.count
        with self._connection():
            dist.gather_object(done, gathered if self.number == 0 else None, dst=0)
        return gathered

    def _attempt(self, task: Callable[[W, T], R], work: W, share: T) -> R:
        """Do a share; a worker that fails leaves word of it, the first rank reads it."""
        try:
            return task(work, share)
        except SystemExit as stop:  # how SIGTERM arrives, which torchrun sends once one has failed
            if self.number == 0 and self.store.check([_FAILED]):
                raise self._failure() from stop
            raise
        except Exception as error:
            if self.number > 0:
                log.exception("rank %d failed", self.number)
                self._leave_word(error)
                raise SystemExit(1) from error
            raise

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """What breaks in here is another rank's end. A worker has nothing to add to it."""
        try:
            yield
        except RuntimeError as error:
            if self.number > 0:
                raise SystemExit(1) from error
            raise self._failure() from error

    def _leave_word(self, error: Exception) -> None:
        first_line = f"{type(error).__name__}: {error}".splitlines()[0]
        self.store.set(_FAILED, f"rank {self.number} failed: {first_line}")

    def _failure(self) -> RankError:
        """Say what ended another rank; torchrun, which ends this one too, has to wait for that."""
        stay_on_sigterm()
        if self.store.check([_FAILED]):
            return RankError(self.store.get(_FAILED).decode())
        return RankError("another rank is gone without a word: torchrun says below how it ended")


@cache
def connected() -> Ranks:
    """Meet the other ranks, once in a process's life; alone, there is nobody to meet."""
    if rank_count() == 1:
        return Ranks()
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store, number, count = next(rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group("gloo", store=store, rank=number, world_size=count, timeout=PATIENCE)
    return Ranks(number, count, store)


@contextmanager
def dismissed_workers() -> Iterator[None]:
    """Let the workers go when the block ends well; torchrun ends them where it fails."""
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
