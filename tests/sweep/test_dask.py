"""Sweeps on a real Dask scheduler with real workers and nannies, on the loopback interface only."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeping import ROOT, dump, workers_of

from npusim.errors import NpusimError
from npusim.sweep import dask_backend, sweep

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

ENVIRONMENT = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
KILLS_ITS_WORKER = """
import os, signal
from npusim.dataflow import Dataflow
from npusim.folding import output_stationary


def cost(grid, hardware):
    if hardware.array.rows == 5:
        os.kill(os.getppid(), signal.SIGKILL)
    return output_stationary(grid, hardware)


DATAFLOW = Dataflow(name="killer", summary="for tests", cost=cost)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler with two workers of one thread, each under its nanny."""
    folder = tmp_path_factory.mktemp("dask")
    address_file = folder / "scheduler.json"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    common = ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(address_file)]
    commands = [["scheduler", "--port", "0", *common]]
    commands += [
        ["worker", *common, "--nthreads", "1", "--nworkers", "1", "--local-directory", str(folder / str(i)),
         "--death-timeout", "60"] for i in range(2)
    ]  # fmt: skip
    processes = []
    try:
        for words in commands:
            processes.append(
                subprocess.Popen([sys.executable, "-m", "dask", *words], env=environment, start_new_session=True,
                                 stderr=(folder / f"log{len(processes)}").open("w"))
            )  # fmt: skip
        from distributed import Client

        deadline = time.monotonic() + 60
        while not address_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with Client(scheduler_file=str(address_file), timeout=30, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def dask_workers(cluster):
    """Process ids of the workers (not of their nannies)."""
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def test_a_cluster_gives_the_same_store(cluster, spec, tmp_path):
    wide = spec(grid={"array.rows": "4..24 step 4", "dataflow": ["dense-os", "dense-ws"]})
    outcome = sweep(wide, tmp_path / "dask.sqlite", scheduler=cluster)
    assert outcome.counts == {"done": 12}
    sweep(wide, tmp_path / "local.sqlite", workers=2)
    assert dump(tmp_path / "dask.sqlite") == dump(tmp_path / "local.sqlite")
    # Files were put into each worker's folder once; there is one child per worker.
    assert [len(workers_of(pid)) for pid in dask_workers(cluster)] in ([1, 1], [0, 1], [1, 0])


def test_bad_points_become_rows(cluster, spec, tmp_path, moody):
    bad = spec(fixed={"workload": "tiny-cnn", "dataflow": moody}, grid={"array.rows": [4, 5, 6, 7, 8]}, timeout_s=12.0)
    before = dask_workers(cluster)
    rows = sweep(bad, tmp_path / "s.sqlite", scheduler=cluster).frame().set_index("array.rows")
    assert dict(rows.status) == {4: "done", 5: "crashed", 6: "timeout", 7: "failed", 8: "done"}
    # None of them cost a Dask worker.
    assert sorted(dask_workers(cluster)) == sorted(before)


def test_killed_dask_workers_lose_nothing(cluster, spec, tmp_path):
    victim = dask_workers(cluster)[0]
    killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
    killer.start()
    outcome = sweep(spec(grid={"array.rows": "4..128 step 1"}), tmp_path / "s.sqlite", scheduler=cluster)
    killer.join()
    assert outcome.counts == {"done": 125}
    assert not Path(f"/proc/{victim}").exists()


def test_a_point_that_kills_dask_workers_is_set_apart(cluster, spec, tmp_path):
    killer = tmp_path / "killer.py"
    killer.write_text(KILLS_ITS_WORKER)
    bad = spec(fixed={"workload": "tiny-cnn", "dataflow": str(killer)}, grid={"array.rows": [4, 5, 8]})
    rows = sweep(bad, tmp_path / "s.sqlite", scheduler=cluster).frame().set_index("array.rows")
    assert dict(rows.status) == {4: "done", 5: "crashed", 8: "done"}
    assert rows.message[5] == "every Dask worker that it was given to died"


def test_points_are_batched():
    backend = object.__new__(dask_backend.DaskBackend)
    from collections import deque

    backend._seconds = deque()
    assert len(backend._batch(deque(range(100)), 2)) == 1
    backend._seconds.extend([0.002] * 10)
    assert len(backend._batch(deque(range(1000)), 2)) == dask_backend.MOST_IN_BATCH
    # Towards the end less, but never less than 50 ms of work.
    assert len(backend._batch(deque(range(40)), 2)) == 25
    backend._seconds.extend([3.0] * 200)
    assert len(backend._batch(deque(range(1000)), 2)) == 1


def test_no_scheduler_is_one_message(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_backend, "CONNECT_S", 0.5)
    with pytest.raises(NpusimError, match=r"--scheduler tcp://127\.0\.0\.1:9: cannot connect"):
        sweep(spec(), tmp_path / "s.sqlite", scheduler="tcp://127.0.0.1:9")
