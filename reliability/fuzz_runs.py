"""Fuzzers one after another, each in a process of its own; a CSV row per stretch of time."""

from __future__ import annotations

import csv
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from reliability.target import ROOT
from reliability.targets import TARGETS

FIELDS = ("target", "seconds", "cpu_seconds", "executions", "corpus", "crashes", "date")
# What a single input may take before it counts as a hang or a memory blow-up.
INPUT_SECONDS, PROCESS_MB = 20, 3000


def run(names: list[str], seconds: int, folder: Path, out: Path) -> int:
    """Fuzz every target for what `out` lacks of `seconds`; corpora and crashing inputs stay in `folder`.

    Returns the number of crashes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    crashes = 0
    for name in names:
        left = seconds - _spent(name, out)
        if left < 1:
            continue
        row = stretch(name, left, folder)
        crashes += int(row["crashes"])
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
    return crashes


def _spent(name: str, out: Path) -> int:
    """Seconds that `out` has of a target."""
    if not out.exists():
        return 0
    with out.open(newline="", encoding="utf-8") as file:
        return int(sum(float(row["seconds"]) for row in csv.DictReader(file) if row["target"] == name))


def stretch(name: str, seconds: int, folder: Path) -> dict[str, object]:
    """One stretch of one target; it goes on with the corpus of the one before."""
    found = folder / f"{name}-found"
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    command = [
        sys.executable, str(ROOT / "reliability" / "fuzz.py"), name, str(folder / name),
        f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={PROCESS_MB}",
        f"-max_len={TARGETS[name].most_bytes}", f"-artifact_prefix={found}/",
    ]  # fmt: skip
    used, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        subprocess.run(command, stdout=file, stderr=file, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    counts = re.findall(rb"#(\d+)", log.read_bytes())
    return {
        "target": name, "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, 1),
        "executions": max(map(int, counts), default=0), "corpus": len(list((folder / name).iterdir())),
        "crashes": sum(not path.name.startswith("slow-unit") for path in set(found.iterdir()) - before),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def names(wanted: str) -> list[str]:
    return list(TARGETS) if wanted == "all" else wanted.split(",")
