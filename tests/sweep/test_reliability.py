"""No result is lost: killed workers, a killed parent, a full disk, two sweeps, endless and crashing points."""

import json
import os
import resource
import signal
import subprocess
import time

import pytest
from sweeping import dump, start, stored, workers_of

from npusim.errors import NpusimError
from npusim.sweep import sweep
from npusim.sweep.run import Listener
from npusim.sweep.store import DONE, Result, Store, StoreError

RUN = """
import json, sys
from npusim.sweep import sweep
sweep(json.loads(sys.argv[1]), sys.argv[2], workers=2)
"""


class KillsWorkers(Listener):
    """SIGKILL to every worker process of this process, at the second and fifth result."""

    def __init__(self):
        self.seen = self.killed = 0

    def result(self, result):
        self.seen += 1
        if self.seen in (2, 5):
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


WIDE = {
    "name": "wide",
    "fixed": {"workload": "tiny-cnn"},
    "grid": {"array.rows": "4..64 step 4", "array.cols": [8, 16]},
}


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What the store of WIDE holds when nothing disturbs the sweep."""
    store = tmp_path_factory.mktemp("calm") / "calm.sqlite"
    assert sweep(WIDE, store, workers=2).counts == {"done": 32}
    return dump(store)


def test_killed_workers_lose_nothing(calm, tmp_path):
    listener = KillsWorkers()
    outcome = sweep(WIDE, tmp_path / "killed.sqlite", workers=2, listener=listener)
    assert listener.killed >= 2
    assert outcome.counts == {"done": 32}
    assert dump(tmp_path / "killed.sqlite") == calm
    assert workers_of(os.getpid()) == []


def test_bad_points_become_rows(spec, tmp_path, moody):
    bad = spec(
        fixed={"workload": "tiny-cnn", "dataflow": moody}, grid={"array.rows": [4, 5, 6, 7, 8, 9]}, timeout_s=12.0
    )
    outcome = sweep(bad, tmp_path / "s.sqlite", workers=2)
    rows = outcome.frame().set_index("array.rows")
    assert dict(rows.status) == {4: "done", 5: "crashed", 6: "timeout", 7: "failed", 8: "done", 9: "crashed"}
    assert rows.message[5] == "its process ended with code 7, 3 times"
    assert rows.message[6] == "took longer than 12 s"
    assert rows.message[7] == "fault of npusim: ValueError: seven rows"
    assert rows.message[9] == "its process was ended by SIGSEGV, 3 times"
    assert outcome.failures == 4
    again = sweep(bad, tmp_path / "s.sqlite", workers=2)
    assert again.computed == 0


def test_killed_coordinator_resumes_to_the_same_store(calm, tmp_path):
    store = tmp_path / "killed.sqlite"
    process = start(RUN, json.dumps(WIDE), store)
    while process.poll() is None and stored(store) < 3:
        time.sleep(0.02)
    orphans = workers_of(process.pid)
    process.kill()
    process.wait()
    before = stored(store)
    assert 3 <= before < 32
    outcome = sweep(WIDE, store, workers=2)
    assert outcome.computed == 32 - before
    with Store(store, writing=False) as opened:
        assert opened.integrity() == "ok"
    assert dump(store) == calm
    deadline = time.monotonic() + 15
    while any(os.path.exists(f"/proc/{pid}") for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in orphans if os.path.exists(f"/proc/{pid}")]


FILL = """
import resource, sys
from npusim.sweep.store import DONE, Result, Store, StoreError
from npusim.sweep.metrics import METRICS
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
count = 0
try:
    for i in range(100_000):
        store.add([Result(f"{i:064x}", DONE, "", dict.fromkeys(METRICS, i))], "now")
        count += 1
except StoreError as error:
    print(count, error)
"""


def test_full_disk_is_one_clear_message_and_no_corruption(tmp_path):
    path = tmp_path / "full.sqlite"
    process = start(FILL, path, stdout=subprocess.PIPE)
    said = process.communicate(timeout=60)[0]
    count, _, message = said.partition(" ")
    assert "the disk is full or a size limit is reached" in message
    assert "Every result committed so far is kept" in message
    with Store(path) as store:
        assert store.integrity() == "ok"
        assert store.keys() == {f"{i:064x}" for i in range(int(count))}
        store.add([Result("more", DONE, "", {})], "now")


def test_full_disk_in_the_middle_of_a_sweep(spec, tmp_path):
    """The command ends with one message; with room again it goes on where it was."""
    many = spec(grid={"array.rows": "4..64 step 4"})
    code = RUN.replace(
        "sweep(json", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (30_000,) * 2)\nsweep(json"
    )
    process = start(code, json.dumps(many), tmp_path / "s.sqlite", stderr=subprocess.PIPE)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "StoreError" in said and "the disk is full or a size limit is reached" in said
    assert sweep(many, tmp_path / "s.sqlite", workers=2).counts == {"done": 16}


def test_a_second_sweep_on_a_store_is_refused(spec, tmp_path):
    with Store(tmp_path / "s.sqlite") as first:
        with pytest.raises(
            StoreError, match=rf"in use by another sweep \(process {os.getpid()} on .*choose another --store"
        ):
            sweep(spec(), tmp_path / "s.sqlite", workers=1)
        assert first.integrity() == "ok"
        with Store(tmp_path / "s.sqlite", writing=False) as reader:
            assert reader.keys() == set()
    assert sweep(spec(), tmp_path / "s.sqlite", workers=1).counts == {"done": 4}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_command_keeps_what_is_done(spec, tmp_path, number):
    toml = tmp_path / "wide.toml"
    axes = '"array.rows" = "4..64 step 1"\n"array.cols" = "4..64 step 1"\n'
    toml.write_text(f'name = "wide"\nfixed.workload = "tiny-cnn"\n[grid]\n{axes}')
    store = tmp_path / "s.sqlite"
    # Tests that run in the background inherit an ignored SIGINT.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom npusim.cli import main\nmain()"
    )
    process = start(code, "sweep", toml, "--store", store, "-j", 2, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while process.poll() is None and stored(store) < 3:
        time.sleep(0.02)
    children = workers_of(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to go on" in said and "Traceback" not in said
    assert 3 <= stored(store) < 61 * 61
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_workers_that_cannot_start_are_an_error(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(NpusimError, match="worker processes cannot be started: the last one ended with code 1"):
        sweep(spec(), tmp_path / "s.sqlite", workers=1)


def test_hundred_thousand_rows_are_exported_in_seconds(tmp_path):
    from npusim.sweep import export
    from npusim.sweep.metrics import METRICS

    rows = 100_000
    path = tmp_path / "large.sqlite"
    point = {"workload": "resnet18", "hardware": "edge-16x16", "dataflow": "dense-os", "engine": "fast"}
    with Store(path) as store:
        members = (
            (f"{i:064x}", {**point, "array.rows": i % 100 + 1, "buffers.a.bytes": i // 100}) for i in range(rows)
        )
        store.begin("large", {}, members, "now")
        store.add((Result(f"{i:064x}", DONE, "", dict.fromkeys(METRICS, i)) for i in range(rows)), "now")
    begin = time.monotonic()
    table = export.frame(path)
    export.write(tmp_path / "large.parquet", table)
    seconds = time.monotonic() - begin
    assert len(table) == rows and table.cycles.iloc[-1] == rows - 1
    assert seconds < 20, f"{seconds:.1f} s"
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert limit < 4 * 2**20
