"""A worker process: takes jobs from its parent over one socket, sends back rows; ends when the parent does.

    python -m npusim.sweep.worker FD FOLDER

FOLDER holds the resources of jobs. Messages are pickles between a parent and a child of one user. To the worker: a Job.
From it: None when it is ready, then (key, status, message, metrics, seconds) for every job.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path


def main(fd: int, folder: Path) -> None:
    # The parent decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a dataflow prints must not end up in the parent's output.
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(), folder), daemon=True).start()
    parent = os.getppid()
    with Connection(fd) as connection, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(connection, folder)
    # The parent clears up, unless it was killed: its end of the socket closes a moment before it is gone.
    time.sleep(0.3)
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(connection: Connection, folder: Path) -> None:
    from npusim.sweep.evaluate import Evaluator

    evaluator = Evaluator(folder)
    connection.send(None)
    while True:
        job = connection.recv()
        begin = time.perf_counter()
        status, message, metrics = evaluator.row(job)
        connection.send((job.key, status, message, metrics, time.perf_counter() - begin))


def _end_with(parent: int, folder: Path) -> None:
    """A parent that was killed leaves nobody to wait for a point that never ends, or to clear up."""
    while os.getppid() == parent:
        time.sleep(1.0)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
