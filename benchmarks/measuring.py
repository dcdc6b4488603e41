"""Timers: the least of several runs, in wall-clock and CPU seconds, in this process or a fresh one."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Spent(NamedTuple):
    """Least of several runs; `peak_mib` of a process, 0 where it was not asked for."""

    wall_s: float
    cpu_s: float
    peak_mib: float = 0.0


def best(action: Callable[[], object], runs: int = 5, before: Callable[[], object] = lambda: None) -> Spent:
    """`action` after one warm-up; `before` every run something that is not timed."""
    wall, cpu = [], []
    for run in range(runs + 1):
        before()
        begin, spent = time.perf_counter(), time.process_time()
        action()
        if run:
            wall.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - spent)
    return Spent(min(wall), min(cpu))


# A child's peak memory begins at that of the process that starts it, so a small one in between does.
LAUNCHER = """
import resource, subprocess, sys, time
begin = time.perf_counter()
code = subprocess.call([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
wall, usage = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(code)
"""


def process(arguments: Sequence[str], runs: int = 1, python: str = sys.executable) -> Spent:
    """A fresh process of `python` with `arguments`."""
    found = []
    for _ in range(runs):
        command = [python, "-c", LAUNCHER, *arguments]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode:
            raise SystemExit(f"python {' '.join(arguments)}: exit code {child.returncode}")
        found.append(Spent(*map(float, child.stdout.split())))
    return Spent(*(min(values) for values in zip(*found, strict=True)))


def peak_mib() -> float:
    """Peak memory of this process since it began its program (Linux; elsewhere also of what started it)."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    """Processor and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"
