"""Workloads by name or file: recorded traces, and files of other tools (`npusim.trace.imports`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npusim.graph import StepGraph

IMPORTED = (".toml", ".onnx", ".csv", ".json", ".json.gz")


def find(workload: str | Path) -> tuple[Path, StepGraph]:
    """The file of a workload and its step; CatalogueError (no such name) or TraceError (a bad file)."""
    from npusim import catalogue, trace

    if str(workload).endswith(IMPORTED) and Path(workload).is_file():
        return Path(workload), trace.import_file(workload)
    source = catalogue.find("workloads", workload)
    return source, trace.read(source)
