"""Helpers of the sweep tests: processes that run code, and what a store holds."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(code, *words, **options):
    """A Python process that runs `code`."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env={**os.environ, "PYTHONPATH": path}, text=True, **options
    )


def dump(store):
    """Everything in a store that must not depend on how it came to be."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        found = [
            connection.execute(query).fetchall()
            for query in ("SELECT * FROM results ORDER BY key", "SELECT * FROM members ORDER BY sweep, position")
        ]
    connection.close()
    return found


def workers_of(parent):
    """Ids of worker processes whose parent is `parent`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                command = Path(f"/proc/{entry}/cmdline").read_text()
            except OSError:
                continue
            if int(stat[1]) == parent and "npusim.sweep.worker" in command and stat[0] != "Z":
                found.append(int(entry))
    return found


def stored(path):
    """How many results a store has that somebody else writes."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            count = connection.execute("SELECT count(*) FROM results").fetchone()[0]
        connection.close()
        return count
    except sqlite3.Error:
        return 0
