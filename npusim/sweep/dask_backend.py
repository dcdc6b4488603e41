"""The same jobs on a dask.distributed cluster: batches of points, files once per worker, poison kept apart.

A Dask task is a batch. Inside a Dask worker the batch runs in a child process (a `Pool` of one), so that a point that
crashes or never ends costs that child and becomes a row; the worker and its nanny live on. Should a Dask worker itself
die, the scheduler moves its tasks; a batch that has cost `allowed-failures` workers is taken apart and tried again
point by point. The scheduler blames every task that a dead worker held, so a single point is only a suspect: at the
end each runs once more with nothing beside it, and one that still costs its workers is recorded as crashed.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError
from npusim.sweep.points import Job, Resource, code_version
from npusim.sweep.store import CRASHED, Result

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S, WORKERS_S = 20.0, 120.0
LEAST_BATCH_S, WANTED_BATCH_S = 0.05, 0.5
MOST_IN_BATCH = 64
RETRIES = 2
LISTEN_S = 1.0


class DaskBackend:
    """Runs jobs on the cluster of the scheduler at `address`."""

    def __init__(self, address: str, timeout_s: float, resources: Mapping[str, Resource], workers_s: float = WORKERS_S):
        self.timeout_s, self.resources, self.workers_s = timeout_s, resources, workers_s
        self.address = address
        self.client = _connect(address)
        self._files: dict[str, Future] = {}
        self._seconds: deque[float] = deque(maxlen=200)
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._suspects: deque[Job] = deque()
        self._alone: Future | None = None

    def close(self) -> None:
        self._files.clear()
        self.client.close(timeout=5)

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """A result for every job; NpusimError when the cluster is lost or runs other code."""
        waiting: deque[list[Job]] = deque()
        rest = deque(jobs)
        running: dict[Future, list[Job]] = {}
        seen = time.monotonic()
        try:
            while rest or waiting or running or self._suspects:
                slots = sum(self.client.nthreads().values())
                while (rest or waiting) and len(running) < 2 * max(1, slots):
                    batch = waiting.popleft() if waiting else self._batch(rest, slots)
                    running[self._submit(batch)] = batch
                if not running:
                    batch = [self._suspects.popleft()]
                    self._alone = self._submit(batch)
                    running[self._alone] = batch
                ended = [future for future in self._ended() if future in running]
                if ended or slots:
                    seen = time.monotonic()
                elif time.monotonic() - seen > self.workers_s:
                    raise NpusimError(f"{self.address}: no worker for {self.workers_s:g} s; results so far are stored")
                for future in ended:
                    yield from self._results(future, running.pop(future), waiting)
        except (OSError, TimeoutError) as error:
            raise NpusimError(f"{self.address}: the scheduler is lost ({error}); results so far are stored") from None
        finally:
            for future in running:
                future.cancel()

    def _batch(self, rest: deque[Job], slots: int) -> list[Job]:
        """The next points: enough for WANTED_BATCH_S, fewer towards the end, never less than LEAST_BATCH_S."""
        if not self._seconds:
            return [rest.popleft()]
        each = max(1e-4, sum(self._seconds) / len(self._seconds))
        fair = math.ceil(len(rest) / (2 * max(1, slots)))
        size = max(math.ceil(LEAST_BATCH_S / each), min(fair, math.ceil(WANTED_BATCH_S / each)))
        return [rest.popleft() for _ in range(min(size, MOST_IN_BATCH, len(rest)))]

    def _submit(self, batch: list[Job]) -> Future:
        for digest in {digest for job in batch for digest in job.resources} - set(self._files):
            # A task and not scattered data: it can be run again when the worker that held the file dies.
            file = self.resources[digest]
            self._files[digest] = self.client.submit(Resource, file.name, file.content, key=f"npusim-{digest}")
        files = {digest: self._files[digest] for job in batch for digest in job.resources}
        retries = RETRIES if len(batch) > 1 else 0
        future = self.client.submit(
            run_batch, batch, self.timeout_s, code_version(), files, pure=False, retries=retries
        )
        future.add_done_callback(self._done.put)
        return future

    def _ended(self) -> list[Future]:
        """Futures that have ended since the last call, or none within LISTEN_S."""
        found: list[Future] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._done.get(timeout=LISTEN_S))
            while True:
                found.append(self._done.get_nowait())
        return found

    def _results(self, future: Future, batch: list[Job], waiting: deque[list[Job]]) -> list[Result]:
        from distributed import KilledWorker

        error = future.exception() if future.status == "error" else None
        if error is None and future.status == "finished":
            found = future.result()
            self._seconds.extend(result.seconds for result in found)
            return found
        if future.status in ("lost", "pending"):
            # It had ended, and its worker died with the results.
            waiting.append(batch)
            return []
        if isinstance(error, KilledWorker):
            if len(batch) > 1:
                waiting.extend([job] for job in batch)
                return []
            if future is not self._alone:
                self._suspects.extend(batch)
                return []
            return [Result(batch[0].key, CRASHED, "every Dask worker that it was given to died", {})]
        if isinstance(error, NpusimError):
            raise error
        reason = f"{type(error).__name__}: {error}" if error else f"a task is {future.status}"
        raise NpusimError(f"{self.address}: its workers cannot run npusim: {reason}")


def run_batch(jobs: list[Job], timeout_s: float, code: str, resources: Mapping[str, Resource]) -> list[Result]:
    """In a Dask worker: the results of `jobs`, computed in a child process that is kept for the next batch."""
    from distributed import get_worker

    from npusim.sweep.pool import Pool

    if code != code_version():
        raise NpusimError("the Dask workers have another version of npusim than this process: install the same one")
    worker = get_worker()
    pools: dict[int, Any] = worker.__dict__.setdefault("npusim_pools", {})
    pool = pools.pop(threading.get_ident(), None) or Pool(1, timeout_s, {})
    pool.timeout_s, pool.resources = timeout_s, {**pool.resources, **resources}
    try:
        found = [result._replace(worker=f"{worker.address} {result.worker}") for result in pool.run(jobs)]
    except BaseException:
        pool.close()
        raise
    pools[threading.get_ident()] = pool
    return found


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise NpusimError('--scheduler needs dask.distributed; pip install "npusim[distributed]"') from None
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NpusimError(f"--scheduler {address}: cannot connect: {error}") from None
