"""Where a result comes from: versions, digests, full parameters, command line and date.

Everything but the date is the same for the same inputs; with SOURCE_DATE_EPOCH set, the date too.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim.mapping.choice import Choice
    from npusim.simulation import Run
    from npusim.spill import MemoryLimit

SCHEMA = 1
LIBRARIES = ("numpy", "numba", "simpy", "pandas", "pydantic", "matplotlib")


@dataclass(frozen=True)
class Request:
    """What the user asked for. `source` is the workload's file (None when made in memory), `dataflows` the files
    of the dataflows by name, `changes` the keys of the machine that differ from its description, `memory` the limit of
    the step's memory, `choice` how tilings are chosen."""

    workload: str
    hardware: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    batch: int | None = None
    engine: str = "fast"
    energy: str | None = None
    source: Path | None = None
    dataflows: Mapping[str, Path] = field(default_factory=dict)
    memory: MemoryLimit | None = None
    choice: Choice | None = None


def manifest(runs: Sequence[Run], request: Request, command: Sequence[str]) -> dict[str, Any]:
    """JSON-ready record of simulations of one step on one machine."""
    from npusim import program

    first = runs[0]
    return {
        "schema": SCHEMA,
        "command": list(command),
        "date": date(),
        "versions": versions(),
        "code_sha256": code_digest(),
        "workload": {
            "name": first.graph.name,
            "requested": request.workload,
            "file_sha256": file_digest(request.source),
            "digest": first.graph.digest(),
            "input_size": request.input_size,
            "batch": request.batch,
            "meta": dict(first.graph.meta),
        },
        "hardware": {
            "requested": request.hardware,
            "changes": dict(request.changes),
            "digest": first.hardware.digest(),
            "parameters": first.hardware.model_dump(),
        },
        "engine": request.engine,
        "mapping": mapping_of(request.choice),
        "memory_limit": asdict(request.memory) if request.memory else None,
        "dataflows": {
            run.dataflow: {
                "file_sha256": file_digest(request.dataflows.get(run.dataflow)),
                "program_sha256": program.digest(run.lowered.program),
                "cycles": int(run.cycles.sum()),
                "energy_pj": run.energy.total_pj,
            }
            for run in runs
        },
        "energy": _energy(first),
    }


def mapping_of(choice: Choice | None) -> dict[str, Any]:
    """What tilings make least, and the file of those fixed by hand."""
    return {
        "objective": choice.objective if choice else "cycles",
        "file": choice.source or None if choice else None,
        "fixed": len(choice.fixed) if choice else 0,
        "digest": choice.digest() or None if choice else None,
    }


def versions() -> dict[str, str]:
    """npusim, Python and the libraries that numbers or pictures depend on."""
    from importlib.metadata import PackageNotFoundError, version

    from npusim import __version__

    found = {"npusim": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def code_digest() -> str:
    """sha256 over npusim's own Python files."""
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def date() -> str:
    """Now (or SOURCE_DATE_EPOCH) in UTC, to the second."""
    from datetime import UTC, datetime

    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.isoformat(timespec="seconds")


def _energy(run: Run) -> dict[str, Any]:
    prices = run.energy.prices
    return {
        "table": prices.table,
        "node_nm": prices.node_nm,
        "leakage_mw": prices.leakage_mw,
        "pj_per_action": {f"{action} per {action.work}": action.pj for action in prices.actions},
        "low_confidence": list(prices.doubtful()),
        "sources": dict(prices.sources),
        "confidence": dict(prices.confidence),
        "notes": list(prices.notes),
    }
