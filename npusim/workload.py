"""Workloads by name or file: recorded traces, and layer lists whose backward phases are synthesised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npusim.graph import StepGraph


def find(workload: str | Path) -> tuple[Path, StepGraph]:
    """The file of a workload and its step; CatalogueError (no such name) or TraceError (a bad file)."""
    from npusim import catalogue, trace

    if str(workload).endswith(".toml") and Path(workload).is_file():
        from npusim.synthesis import from_file

        return Path(workload), from_file(workload)
    source = catalogue.find("workloads", workload)
    return source, trace.read(source)
