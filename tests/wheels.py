"""A wheel of npusim, built from a copy of the sources: two workers may build at the same time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path, stamp: int = 1_000_000_000) -> Path:
    """Copy the sources to `folder`, all files of the time `stamp` (s), and build; the wheel's path."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in ("npusim", "dataflows", "workloads"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        os.utime(path, (stamp, stamp))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    (path,) = (folder / "out").glob("*.whl")
    return path
