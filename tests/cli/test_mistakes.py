"""Every mistake of a user is one whole message on stderr, code 2, and nothing written."""

import os
import signal
import subprocess
import sys

import pytest

from npusim import api, catalogue
from npusim.errors import BrokenLaw
from npusim.simulation import Run


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "smal"], "unknown workload 'smal' (did you mean 'small'?); known: {workloads}"),
        (
            ["compare", "small", "-d", "dense-os,selective-rows"],
            "unknown dataflow 'selective-rows' (did you mean 'selective-row'?); known: {dataflows}",
        ),
        (
            ["run", "small", "--hardware", "edge-16x61"],
            "unknown hardware 'edge-16x61' (did you mean 'edge-16x16'?); known: {hardware}",
        ),
        (
            ["run", "small", "--engine", "simpi"],
            "--engine 'simpi' is not an engine (did you mean 'simpy'?); known: fast, simpy",
        ),
        (
            ["run", "small", "--energy", "generic-22nm"],
            "unknown energy table 'generic-22nm' (did you mean 'generic-28nm'?); known: {energy}",
        ),
        (["run", "nowhere.npz"], "no such workload file: nowhere.npz"),
        (["compare", "small", "-d", "dense-os,dense-os"], "--dataflow names dense-os twice"),
        (["compare", "small", "-d", ","], "--dataflow names no dataflow"),
        (
            ["run", "small", "--set", "array.rows", "--set", "array.cols=1", "--set", "array.cols=2"],
            "options that cannot be understood:\n"
            "  --set array.rows: write KEY=VALUE, for example --set array.rows=32\n"
            "  --set array.cols=2: array.cols is set twice",
        ),
        (
            ["run", "small", "--set", "array.colz=8"],
            "hardware 'edge-16x16' cannot be changed:\n  array.colz: unknown key (did you mean 'array.cols'?)",
        ),
        (
            ["run", "small", "--set", "array.rows=many", "--set", "array.cols=0"],
            "hardware 'edge-16x16' with array.rows = many, array.cols = 0: 2 problems\n"
            "  array.rows = \"many\": must be a valid integer\n"
            "  array.cols = 0: must be greater than or equal to 1",
        ),
        (
            ["run", "plain", "-d", "selective-row"],
            "dataflow 'selective-row' skips work by update masks, but step 'plain' has none; "
            "use a recorded workload with masks, a method that selects (swu:density=0.1), or a dense dataflow",
        ),
        (
            ["run", "small", "-d", "dense-os,dense-ws"],
            "Invalid value for --dataflow: one dataflow, not 2; `npusim compare` takes several\n"
            "Try 'npusim run --help'.",
        ),
        (
            ["run", "small", "--method", "last-kk"],
            "unknown method 'last-kk' (did you mean 'last-k'?); known: {methods}",
        ),
        (
            ["report", "nowhere"],
            "nowhere/manifest.json: cannot be read: No such file or directory; a folder that `npusim run --out` or "
            "`compare --out` wrote is needed",
        ),
        (
            ["timeline", "small", "--out", "x.txt"],
            "a timeline is written as .pftrace, .json, .png, .svg, not '.txt'",
        ),
        (
            ["timeline", "small", "--out", "x.json", "--ops", "3to4"],
            "Invalid value for --ops: '3to4': write FIRST-LAST, for example 12-20\nTry 'npusim timeline --help'.",
        ),
        (
            ["timeline", "small", "--out", "x.json", "--layers", "conv3"],
            "no operation is called conv3 (did you mean 'conv2'?)",
        ),
        (["runn", "small"], "No such command 'runn'. Did you mean 'run'?\nTry 'npusim --help'."),
        (
            ["run"],
            "Invalid value for WORKLOAD: give a workload, or --scalesim-config and --topology\n"
            "Try 'npusim run --help'.",
        ),
        (
            ["list", "workload-s"],
            "Invalid value for 'KIND': 'workload-s' (did you mean 'workloads'?); "
            "known: workloads, dataflows, hardware, energy, methods\nTry 'npusim list --help'.",
        ),
        (
            ["trace", "reshape", "small", "out.npz"],
            "Invalid value for --input-size: give --input-size, --batch or both\nTry 'npusim trace reshape --help'.",
        ),
        (["run", "small", "--out", "/dev/null/x"], "cannot write to /dev/null/x: /dev/null is not a folder"),
        (["compare", "small", "--out", "/dev/null"], "cannot write to /dev/null: /dev/null is not a folder"),
        (
            ["trace", "reshape", "small", "/dev/null/x.npz", "--batch", "2"],
            "cannot write to /dev/null: /dev/null is not a folder",
        ),
    ],
)  # fmt: skip
def test_one_message(npusim, words, message):
    result = npusim(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"npusim: {filled(message)}\n"


def filled(message):
    """`message` with the names that the catalogues hold today."""
    for kind in (*catalogue.KINDS, "methods"):
        message = message.replace(f"{{{kind}}}", ", ".join(api.names(kind)))
    return message


def test_a_layer_that_does_not_fit(npusim):
    settings = [f"--set=buffers.a.{key}" for key in ("bytes=16", "bytes_per_cycle=8", "banks=1")]
    result = npusim("run", "small", "--hardware", "mcu-8x8", *settings)
    assert (result.code, result.out) == (2, "")
    # Each of the 8 rows of the smallest tile holds one window row of the reduction: the message counts them.
    assert result.err.startswith("npusim: conv1:forward (N2 C3 8x8 K16 3x3 p1) with dense-os: the smallest tile needs ")
    assert "in buffer 'a', but mcu-8x8 has 8 (half of 16 bytes)" in result.err


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + 18 * b"\0"])
def test_a_corrupt_trace(npusim, tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    result = npusim("compare", path, "--out", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"npusim: {path}: ") and result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_all_mistakes_of_a_machine_are_listed(npusim, tmp_path):
    path = tmp_path / "machine.toml"
    path.write_text('name = "m"\nclock_hz = "fast"\n[array]\nrows = 0\ncolumns = 4\n')
    err = npusim("run", "small", "--hardware", path).err
    assert err.startswith(f"npusim: {path}: ")
    for part in ("clock_hz = ", "array.rows = 0", "array.columns: unknown key", "array.cols: missing", "dram: missing"):
        assert part in err


def test_a_mistake_in_the_middle_leaves_old_files(npusim, tmp_path):
    npusim("run", "small", "--out", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert npusim("run", "plain", "-d", "selective-row", "--out", tmp_path).code == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_broken_law_is_code_1_and_not_the_users(npusim, monkeypatch):
    def broken(self):
        raise BrokenLaw("the simulation broke its own laws: cycles below a lower bound of 1 operations")

    monkeypatch.setattr(Run, "verify", broken)
    result = npusim("run", "small")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "npusim: the simulation broke its own laws: cycles below a lower bound of 1 operations\n"
        "This is a fault of npusim; please report it.\n"
    )


def test_our_own_faults_keep_their_traceback(npusim, monkeypatch):
    monkeypatch.setattr(Run, "verify", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        npusim("run", "small")


def test_hostile_arguments_are_shown_harmless(npusim):
    err = npusim("run", "\x1b]0;title\x07").err
    assert err == f"npusim: unknown workload '\\x1b]0;title\\x07'; known: {', '.join(catalogue.names('workloads'))}\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupt_is_130():
    code = (
        "import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from npusim.cli import main, options\n"
        "def wait(*_): print('ready', flush=True); signal.pause()\n"
        "options.prepare = wait\nsys.argv = ['npusim', 'run', 'small']\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"npusim: interrupted\n")


def test_a_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "npusim", "run", "small"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)
