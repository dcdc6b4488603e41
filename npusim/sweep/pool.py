"""Local worker processes that survive each other: a killed one is replaced and its point is tried again.

A point that takes longer than its time limit, or that ends its process `attempts` times, becomes a row.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from npusim.errors import NpusimError
from npusim.sweep.evaluate import place
from npusim.sweep.points import Job, Resource
from npusim.sweep.store import CRASHED, TIMEOUT, Result

ATTEMPTS = 3
FAILED_STARTS = 3
START_S = 120.0
NEIGHBOURS = 16


@dataclass
class _Worker:
    process: subprocess.Popen
    connection: Connection
    ready: bool = False
    job: Job | None = None
    deadline: float = 0.0
    next: deque[Job] = field(default_factory=deque)


class Pool:
    """`size` processes; use it as a context. `resources` go to a folder of the pool when a job first needs them."""

    def __init__(
        self, size: int, timeout_s: float, resources: Mapping[str, Resource], attempts: int = ATTEMPTS
    ) -> None:
        self.size, self.timeout_s, self.resources, self.attempts = size, timeout_s, resources, attempts
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._tries: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="npusim-sweep-", ignore_cleanup_errors=True)
        self._placed: set[str] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
        self._workers.clear()
        self._folder.cleanup()

    @property
    def processes(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """A result for every job, in the order in which they end."""
        waiting = deque(jobs)
        while waiting or any(worker.job or worker.next for worker in self._workers):
            while len(self._workers) < min(self.size, len(waiting) + len(self._workers)):
                self._workers.append(self._started())
            for worker in self._workers:
                if worker.ready and worker.job is None and (worker.next or waiting):
                    self._give(worker, waiting)
            yield from self._collect(waiting)

    def _started(self) -> _Worker:
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "npusim.sweep.worker", str(theirs.fileno()), self._folder.name],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        return _Worker(process, Connection(ours.detach()), deadline=time.monotonic() + START_S)

    def _give(self, worker: _Worker, waiting: deque[Job]) -> None:
        if not worker.next:
            # Neighbours share most of what a worker keeps; towards the end, no worker hoards what another could do.
            share = max(1, min(NEIGHBOURS, len(waiting) // (2 * self.size)))
            worker.next.extend(waiting.popleft() for _ in range(share))
        job = worker.next.popleft()
        worker.job, worker.deadline = job, time.monotonic() + self.timeout_s
        for digest in set(job.resources) - self._placed:
            place(Path(self._folder.name), digest, self.resources[digest])
            self._placed.add(digest)
        # One that died between two jobs is noticed when it is waited for; the job is then given again.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(job)

    def _collect(self, waiting: deque[Job]) -> Iterator[Result]:
        now = time.monotonic()
        until = min((w.deadline for w in self._workers if w.job or not w.ready), default=now + 1.0)
        ready = set(wait([w.connection for w in self._workers], max(0.0, min(until - now, 60.0))))
        for worker in list(self._workers):
            if worker.connection in ready:
                result = self._receive(worker, waiting)
            elif (worker.job or not worker.ready) and time.monotonic() >= worker.deadline:
                result = self._late(worker, waiting)
            else:
                continue
            if result is not None:
                yield result

    def _receive(self, worker: _Worker, waiting: deque[Job]) -> Result | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._dead(worker, waiting)
        if message is None:
            worker.ready, self._failed_starts = True, 0
            return None
        key, status, text, metrics, seconds = message
        worker.job = None
        return Result(key, status, text, metrics, f"process {worker.process.pid}", seconds)

    def _late(self, worker: _Worker, waiting: deque[Job]) -> Result | None:
        self._remove(worker, waiting)
        job = worker.job
        if job is None:
            self._start_failed(f"did not start within {START_S:g} s")
            return None
        return Result(job.key, TIMEOUT, f"took longer than {self.timeout_s:g} s", {}, "", self.timeout_s)

    def _dead(self, worker: _Worker, waiting: deque[Job]) -> Result | None:
        code = self._remove(worker, waiting)
        how = ended(code)
        job = worker.job
        if job is None:
            if not worker.ready:
                self._start_failed(how)
            return None
        tries = self._tries[job.key] = self._tries.get(job.key, 0) + 1
        if tries < self.attempts:
            waiting.appendleft(job)
            return None
        return Result(job.key, CRASHED, f"its process {how}, {tries} times", {})

    def _remove(self, worker: _Worker, waiting: deque[Job]) -> int:
        self._workers.remove(worker)
        waiting.extendleft(reversed(worker.next))
        worker.connection.close()
        # One that closed its end is about to end by itself; how it ends is worth knowing.
        try:
            return worker.process.wait(0.5 if worker.deadline > time.monotonic() else 0)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            return worker.process.wait()

    def _start_failed(self, how: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise NpusimError(f"worker processes cannot be started: the last one {how}")


def ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
