"""kill -9 at random moments while files are written: every file is the old one or the new one, never a torn one.

A child is forked from a process that has everything loaded, and does its work over and over: it alternates between two
inputs, so that every file always has an old and a new content. The parent kills it at a random moment, and looks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

LAYERS = """name = "{name}"
[[layers]]
name = "in"
kind = "input"
shape = [1, 3, 8, 8]
[[layers]]
name = "conv"
kind = "conv"
out = {out}
kernel = 3
padding = 1
[[layers]]
name = "flat"
kind = "flatten"
[[layers]]
name = "fc"
kind = "linear"
out = 10
"""


@dataclass
class Tally:
    """Kills of one kind of work; `during`: kills that found files half way between old and new, or temporary files."""

    work: str
    kills: int = 0
    during: int = 0
    files: int = 0
    torn: list[str] = field(default_factory=list)


def command(*arguments: object) -> None:
    """`npusim ARGUMENTS` in this process, silent."""
    from npusim.cli import app

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app([str(a) for a in arguments], prog_name="npusim", standalone_mode=False)


def steps(folder: Path) -> list[Path]:
    """Two layer lists."""
    found = []
    for name, out in (("old", 4), ("new", 6)):
        path = folder / f"{name}.toml"
        path.write_text(LAYERS.format(name=name, out=out))
        found.append(path)
    return found


def works(folder: Path) -> dict[str, tuple[Path, Callable[[int], None]]]:
    """What is killed: its output folder, and the work with input 0 or 1."""
    inputs = steps(folder)
    out = {name: folder / name for name in ("run", "report", "trace", "sweep")}
    flows = ("--dataflow", "dense-os,dense-ws")

    def trace(i: int) -> None:
        from npusim import trace as traces
        from npusim.synthesis import from_file

        out["trace"].mkdir(exist_ok=True)
        traces.write(from_file(inputs[i]), out["trace"] / "step.npz")

    return {
        "run": (out["run"], lambda i: command("run", inputs[i], "--out", out["run"])),
        "report": (out["report"], lambda i: command("compare", inputs[i], *flows, "--out", out["report"])),
        "trace": (out["trace"], trace),
    }


def kill_files(work: str, kills: int, seed: int, folder: Path) -> Tally:
    """Kill one of `works` so often; a content that is neither old nor new is torn."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    random, tally = Random(f"{seed}/{work}"), Tally(work)
    out, act = works(folder)[work]
    contents: list[dict[str, bytes]] = []
    seconds = 0.0
    for i in (0, 1):
        act(i)
        begin = time.monotonic()
        act(i)
        seconds = max(seconds, time.monotonic() - begin)
        contents.append(snapshot(out))
    assert contents[0].keys() == contents[1].keys() and contents[0] != contents[1]
    for number in range(kills):
        begun, beginning = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(beginning, b".")
            _forever(act, number)
        os.read(begun, 1)  # forking a large process takes longer than small work
        time.sleep(random.uniform(0.0, 3.0 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        os.close(beginning)
        tally.kills += 1
        found = snapshot(out)
        origins = set()
        for name, content in found.items():
            if name.endswith(".part"):
                origins.add("part")
                continue
            tally.files += 1
            which = [i for i in (0, 1) if contents[i].get(name) == content]
            if not which:
                tally.torn.append(f"kill {number}: {name} has {len(content)} bytes")
            elif len(which) == 1:
                origins.add(str(which[0]))
        if missing := contents[0].keys() - found.keys():
            tally.torn.append(f"kill {number}: {', '.join(sorted(missing))} is gone")
        tally.during += len(origins) > 1
        for path in out.rglob("*.part"):
            path.unlink()
    act(0)
    assert snapshot(out) == contents[0], "work after all kills gives the old content"
    return tally


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _forever(act: Callable[[int], None], number: int) -> None:
    """Alternate until killed; an exception ends the child with its traceback on stderr."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)  # never outlive a parent that was killed
    try:
        while True:
            number += 1
            act(number % 2)
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(3)


SWEEP: dict[str, Any] = {
    "name": "killed",
    "fixed": {"workload": "tiny-cnn"},
    "grid": {"array.rows": list(range(4, 36, 4)), "array.cols": [8, 16]},
}


class InProcess:
    """A backend of sweeps that evaluates in this very process, so that a kill hits simulation and store alike."""

    def __init__(self, resources: Mapping[str, Any], folder: Path) -> None:
        from npusim.sweep.evaluate import Evaluator, place

        for digest, resource in resources.items():
            place(folder, digest, resource)
        self.evaluator = Evaluator(folder)

    def run(self, jobs: Any) -> Iterator[Any]:
        from npusim.sweep.store import Result

        for job in jobs:
            yield Result(job.key, *self.evaluator.row(job), "here", 0.0)

    def close(self) -> None:
        pass


def sweep(store: Path, folder: Path) -> None:
    """The sweep SWEEP into `store`, in this process."""
    from npusim.sweep import run, spec

    def use(described: Any, resolver: Any, workers: Any, scheduler: Any, action: Callable[[Any], Any]) -> Any:
        return action(InProcess(resolver.resources, folder))

    run.with_backend = use  # type: ignore[assignment]
    run.run(spec.parse(SWEEP), store)


def rows(store: Path) -> list[tuple[Any, ...]]:
    """All results, without when and where they were made."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return connection.execute("SELECT * FROM results ORDER BY key").fetchall()


def kill_sweeps(kills: int, seed: int, folder: Path) -> Tally:
    """Kill a sweep until it is done, and again with a new store; every row is whole, and the end is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    random, tally = Random(f"{seed}/sweep"), Tally("sweep")
    calm = folder / "calm.sqlite"
    begin = time.monotonic()
    sweep(calm, folder)
    seconds, expected = time.monotonic() - begin, rows(calm)
    number = 0
    while tally.kills < kills:
        number += 1
        store = folder / f"{number}.sqlite"
        known: list[tuple[Any, ...]] = []
        while len(known) < len(expected):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                try:
                    sweep(store, folder)
                    os._exit(0)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(3)
            time.sleep(random.uniform(0.0, 0.6 * seconds))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, "the sweep failed"
            tally.kills += 1
            found = rows(store) if store.exists() and _has_results(store) else []
            tally.files += len(found)
            tally.torn += [f"kill {tally.kills}: a row that differs" for row in found if row not in expected]
            if not set(known) <= set(found):
                tally.torn.append(f"kill {tally.kills}: results are lost")
            tally.during += len(known) < len(found) < len(expected)
            known = found
            if tally.kills >= 10 * kills:
                tally.torn.append("the sweep makes no progress")
                return tally
        for path in folder.glob(f"{number}.sqlite*"):
            path.unlink()
    return tally


def _has_results(store: Path) -> bool:
    """Whether the tables are there: they are made in one transaction."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'results'").fetchall()
    return bool(found)


def run(works: list[str], kills: int, seed: int, folder: Path, out: Path) -> int:
    """The named kinds of work, but those that `out` has; it is a JSON object of tallies by work.

    Returns how many files were torn.
    """
    shutil.rmtree(folder, ignore_errors=True)
    torn = 0
    done = json.loads(out.read_text()) if out.exists() else {}
    for work in works:
        if work in done and done[work]["kills"] >= kills:
            continue
        where = folder / work
        tally = kill_sweeps(kills, seed, where) if work == "sweep" else kill_files(work, kills, seed, where)
        torn += len(tally.torn)
        known = json.loads(out.read_text()) if out.exists() else {}
        known[work] = vars(tally) | {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{work}: {tally.kills} kills, {tally.during} in between, {tally.files} files or rows looked at, "
              f"{len(tally.torn)} torn", file=sys.stderr)  # fmt: skip
    return torn
