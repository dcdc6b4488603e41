"""Traces of training steps: file format, capture from PyTorch, re-shaping, tables.

Nothing is imported before the first call: `capture` and `capture_static` need torch
(`pip install npusim[torch]`). Modules: `format` (the file), `pytorch` (capture), `static` (shapes only),
`reshape` (another image size or batch), `show` (tables).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from npusim.graph import StepGraph

__all__ = ["capture", "capture_static", "read", "write"]


def read(path: str | os.PathLike[str]) -> StepGraph:
    """The step stored in a trace file; TraceError for anything but a well-formed one."""
    from npusim.trace.format import read as implementation

    return implementation(path)


def write(graph: StepGraph, path: str | os.PathLike[str]) -> None:
    """Store a step; the file appears whole or not at all, and equal steps give equal bytes."""
    from npusim.trace.format import write as implementation

    implementation(graph, path)


def capture(model: Any, step: Callable[[], Any], **options: Any) -> StepGraph:
    """One training step as PyTorch runs it; arguments as `npusim.trace.pytorch.capture`."""
    from npusim.trace import pytorch

    return pytorch.capture(model, step, **options)


def capture_static(build: Callable[[], Any], input_shape: tuple[int, ...], **options: Any) -> StepGraph:
    """Shapes of one training step without data; arguments as `npusim.trace.static.capture_static`."""
    from npusim.trace import static

    return static.capture_static(build, input_shape, **options)
