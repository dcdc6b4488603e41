"""kill -9, full disks, read-only folders, interrupted compilation; `reliability/run.py faults` is the long form."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npusim import atomic
from npusim.errors import NpusimError
from reliability import faults

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("work, kills", [("trace", 6), ("run", 3), pytest.param("report", 3, marks=pytest.mark.slow)])
def test_killed_writers_leave_old_or_new_files(work, kills, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    tally = faults.kill_files(work, kills, 1, tmp_path)
    assert (tally.kills, tally.torn) == (kills, [])


def test_killed_sweeps_lose_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr("npusim.sweep.run.with_backend", None)
    tally = faults.kill_sweeps(4, 1, tmp_path)
    assert tally.kills >= 4 and tally.torn == []


def test_a_torn_file_would_be_noticed(tmp_path, monkeypatch):
    """The check itself: a writer that is not atomic is caught."""

    def careless(folder, files):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with (Path(folder) / name).open("wb", buffering=0) as file:
                for byte in content if isinstance(content, bytes) else content.encode():
                    file.write(bytes([byte]))

    monkeypatch.setattr(atomic, "write_files", careless)
    # How many kills land in a write depends on how busy the machine is.
    assert any(faults.kill_files("trace", 12, seed, tmp_path / str(seed)).torn for seed in range(10))


@pytest.fixture
def mounted(tmp_path):
    """A tmpfs of 4 MiB; skipped where nobody may mount one."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "small"
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=4m") != 0:
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")

    def remount(flags: int) -> None:
        assert libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 32 | flags, b"size=4m") == 0

    yield folder, remount
    assert libc.umount2(os.fsencode(folder), 2) == 0


def npusim(*arguments, **options):
    command = [sys.executable, "-m", "npusim", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, **options)


def test_a_full_disk_is_one_message_and_keeps_old_files(mounted, tmp_path):
    folder, _ = mounted
    step, _ = faults.steps(tmp_path)
    (folder / "layers.csv").write_text("old\n")
    (folder / "filling").write_bytes(bytes(4 * 2**20 - 2**14))
    failed = npusim("run", step, "--out", folder)
    assert failed.returncode == 2
    assert "No space left on device" in failed.stderr and "Traceback" not in failed.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["filling", "layers.csv"]
    assert (folder / "layers.csv").read_text() == "old\n"
    (folder / "filling").unlink()
    assert npusim("run", step, "--out", folder).returncode == 0
    assert (folder / "layers.csv").read_text().startswith("phase,")


def test_a_read_only_folder_is_refused_before_work(mounted, tmp_path):
    folder, remount = mounted
    step, _ = faults.steps(tmp_path)
    remount(1)
    for arguments in (
        ("run", step, "--out", folder / "new"),
        ("trace", "reshape", "tiny", folder / "step.npz", "--batch", 2),
    ):
        refused = npusim(*arguments)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert "cannot write" in refused.stderr or "unknown workload" in refused.stderr
    remount(0)
    assert list(folder.iterdir()) == []


def test_a_size_limit_in_the_middle_of_a_trace_leaves_the_old_one(tmp_path):
    """RLIMIT_FSIZE: the write fails half way through a file."""
    import resource

    old, new = faults.steps(tmp_path)
    target = tmp_path / "step.npz"
    code = (
        "import sys, resource; from npusim import trace; from npusim.synthesis import from_file\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "if sys.argv[3] != '0': resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "trace.write(from_file(sys.argv[1]), sys.argv[2])"
    )
    assert resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", code, old, target, "0"], check=True, cwd=ROOT)
    before = target.read_bytes()
    failed = subprocess.run([sys.executable, "-c", code, new, target, "500"], capture_output=True, text=True, cwd=ROOT)
    assert f"NpusimError: cannot write {target}: File too large" in failed.stderr
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


COMPILE = (
    "import numpy as np; from npusim import engine, program as tp\n"
    "print('begin', flush=True)\n"
    "z, s = np.zeros(2, np.int64), np.zeros(2, np.uint8)\n"
    "p = tp.TileProgram(np.full(2, tp.COMPUTE, np.uint8), np.zeros(2, np.int32), np.array([3, 4]), z, z, s, s, z,"
    " np.array([0, 0, 1]), np.array([0], np.int32))\n"
    "print(engine.run(p, np.ones(5, np.int64)).end.tolist(), flush=True)"
)


def compiling(cache: Path) -> subprocess.Popen:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "NUMBA_DISABLE_JIT": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", COMPILE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment,
    )  # fmt: skip


def test_interrupted_compilation_and_a_shared_cache(tmp_path):
    """Killed while compiling, and then two processes at once: the right answer, and the cache is used."""
    chance = random.Random(1)
    for _ in range(2):
        process = compiling(tmp_path)
        assert process.stdout.readline() == "begin\n"
        time.sleep(chance.uniform(0.3, 3.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    together = [compiling(tmp_path) for _ in range(2)]
    for process in together:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, "begin\n[3, 7]\n"), err
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert files
    out, err = compiling(tmp_path).communicate(timeout=300)
    assert out == "begin\n[3, 7]\n", err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == files


def test_writing_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NpusimError, match="is not a folder"):
        atomic.write_files(tmp_path / "file" / "sub", {"a": "b"})
