"""Traces of training steps: file format, capture from PyTorch, re-shaping, tables.

Nothing is imported before the first call: `capture` and `capture_static` need torch
(`pip install npusim[torch]`), `from_onnx` needs onnx. Modules: `format` (the file), `pytorch` (capture), `static`
(shapes only), `imports` (other tools' files), `reshape` (another image size or batch), `show` (tables), `diff`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from npusim.graph import StepGraph

__all__ = [
    "capture", "capture_static", "from_execution_trace", "from_jaxpr", "from_layer_table", "from_onnx", "from_profiler",
    "from_scalesim", "import_file", "read", "save_jaxpr", "write",
]  # fmt: skip


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
    _need_torch()
    from npusim.trace import pytorch

    return pytorch.capture(model, step, **options)


def capture_static(build: Callable[[], Any], input_shape: tuple[int, ...], **options: Any) -> StepGraph:
    """Shapes of one training step without data; arguments as `npusim.trace.static.capture_static`."""
    _need_torch()
    from npusim.trace import static

    return static.capture_static(build, input_shape, **options)


def _need_torch() -> None:
    from importlib.util import find_spec

    from npusim.errors import CaptureError

    if find_spec("torch") is None:
        raise CaptureError('a capture needs PyTorch, which is not installed: pip install "npusim[torch]"')


def import_file(path: str | os.PathLike[str], format: str = "auto", **options: Any) -> StepGraph:
    """The step in a file of another tool; arguments and formats as `npusim.trace.imports.import_file`."""
    from npusim.trace import imports

    return imports.import_file(str(path), format, **options)


def from_onnx(path: str | os.PathLike[str], **options: Any) -> StepGraph:
    """A step of the network in an ONNX file; arguments as `npusim.trace.imports.onnx_model.from_onnx`."""
    from npusim.trace.imports import onnx_model

    return onnx_model.from_onnx(str(path), **options)


def from_scalesim(path: str | os.PathLike[str], **options: Any) -> StepGraph:
    """A step of the layers of a SCALE-Sim topology; arguments as `npusim.trace.imports.topology.from_scalesim`."""
    from npusim.trace.imports import topology

    return topology.from_scalesim(str(path), **options)


def from_layer_table(path: str | os.PathLike[str], **options: Any) -> StepGraph:
    """A step of a layer table, TOML or CSV; arguments as `npusim.trace.imports.table.from_layer_table`."""
    from npusim.trace.imports import table

    return table.from_layer_table(str(path), **options)


def from_execution_trace(path: str | os.PathLike[str], **options: Any) -> StepGraph:
    """The step that PyTorch's ExecutionTraceObserver saw; as `npusim.trace.imports.pytorch_events`."""
    from npusim.trace.imports import pytorch_events

    return pytorch_events.from_execution_trace(str(path), **options)


def from_profiler(path: str | os.PathLike[str], **options: Any) -> StepGraph:
    """The step that torch.profiler saw with `record_shapes=True`; as `npusim.trace.imports.pytorch_events`."""
    from npusim.trace.imports import pytorch_events

    return pytorch_events.from_profiler(str(path), **options)


def from_jaxpr(jaxpr: Any, **options: Any) -> StepGraph:
    """The training step of a jaxpr; arguments as `npusim.trace.imports.jaxpr.from_jaxpr`."""
    from npusim.trace.imports import jaxpr as implementation

    return implementation.from_jaxpr(jaxpr, **options)


def save_jaxpr(jaxpr: Any, path: str | os.PathLike[str], **options: Any) -> None:
    """Write what `from_jaxpr` needs of a jaxpr as JSON, to be imported where JAX is not installed."""
    from npusim.trace.imports import jaxpr as implementation

    implementation.save_jaxpr(jaxpr, str(path), **options)
