"""Design-space sweeps: every point of a described space simulated once, results in one file, nothing lost.

    spec (TOML) -> spec.parse -> points.plan -> jobs -> pool or dask_backend -> store -> export, figures, page

`sweep` does all of it. Nothing heavy is imported before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from npusim.sweep.run import Outcome

__all__ = ["sweep"]


def sweep(description: str | Path | Mapping[str, Any], store: str | Path | None = None, **options: Any) -> Outcome:
    """Run what is missing of a sweep (a TOML file, or its tables as a dict); options as `npusim.sweep.run.run`.

    Safe to interrupt and to call again: what `store` (default: <name>.sqlite here) holds is not computed again.
    """
    from npusim.sweep import run, spec

    understood = spec.parse(description) if isinstance(description, dict) else spec.load(description)  # type: ignore[arg-type]
    return run.run(understood, store, **options)
