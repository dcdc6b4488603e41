"""Training steps from other tools' files.

| format          | file                                                                             | backward phases |
|-----------------|----------------------------------------------------------------------------------|-----------------|
| onnx            | ONNX model (`npusim[onnx]`)                                                      | synthesised     |
| scalesim        | SCALE-Sim topology CSV                                                           | synthesised     |
| layers          | layer table as TOML or CSV (`npusim.layers`)                                     | synthesised     |
| execution-trace | JSON of PyTorch's ExecutionTraceObserver                                         | recorded        |
| profiler        | Chrome JSON of torch.profiler with `record_shapes=True`                          | recorded        |
| jax             | JSON that `npusim.trace.save_jaxpr` makes of a training step's jaxpr             | recorded        |

JSON may be gzipped. Every failure is one NpusimError that names the file and the place in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from npusim.errors import NpusimError, TraceError, closest
from npusim.trace.imports import files

if TYPE_CHECKING:
    from npusim.graph import StepGraph

READERS = {
    "onnx": ("onnx_model", "from_onnx"),
    "scalesim": ("topology", "from_scalesim"),
    "layers": ("table", "from_layer_table"),
    "execution-trace": ("pytorch_events", "from_execution_trace"),
    "profiler": ("pytorch_events", "from_profiler"),
    "jax": ("jaxpr", "from_jaxpr_file"),
}
FORMATS = ("auto", *READERS)
OPTIMIZED = ("onnx", "scalesim", "layers")
SKIPPING = ("onnx", "execution-trace", "profiler", "jax")


def import_file(
    path: str | Path, format: str = "auto", *, name: str = "", optimizer: str = "", skip_unknown: bool = False
) -> StepGraph:
    """The step in a file of another tool; `auto` looks at the suffix, then at the first bytes.

    `optimizer` (sgd, momentum, adam) is for files without updates; its default is sgd, or what a TOML table says.
    """
    if format not in FORMATS:
        raise NpusimError(f"unknown format {format!r}{closest(format, FORMATS)}; known: {', '.join(FORMATS)}")
    if not Path(path).exists():
        raise TraceError(f"{path}: no such file")
    chosen = detect(path) if format == "auto" else format
    options: dict[str, object] = {"name": name} if name else {}
    if optimizer:
        if chosen not in OPTIMIZED:
            raise NpusimError(f"{path}: a file of format {chosen} says which optimizer ran; leave --optimizer away")
        options["optimizer"] = optimizer
    if skip_unknown and chosen in SKIPPING:
        options["skip_unknown"] = True
    try:
        return _reader(chosen)(path, **options)
    finally:
        files.forget()


def detect(path: str | Path) -> str:
    """The format of a file; TraceError says which are known."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    last = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    if last in (".onnx", ".toml"):
        return {".onnx": "onnx", ".toml": "layers"}[last]
    if last == ".csv":
        from npusim.trace.imports.table import is_table

        return "layers" if is_table(path) else "scalesim"
    if last == ".json":
        return _of_json(files.load_json(path), path)
    if last == ".cfg":
        raise TraceError(
            f"{path}: a SCALE-Sim configuration is a machine, not a step; "
            f"npusim run --scalesim-config {path} --topology CSV"
        )
    if last == ".npz":
        raise TraceError(f"{path}: is a trace already, or a workload; no import is needed")
    raise TraceError(f"{path}: cannot tell its format by its name; give --format: {', '.join(FORMATS[1:])}")


def _of_json(value: object, path: str | Path) -> str:
    if isinstance(value, dict):
        for key, found in (("traceEvents", "profiler"), ("npusim_jaxpr", "jax"), ("nodes", "execution-trace")):
            if key in value:
                return found
    raise TraceError(
        f"{path}: neither an execution trace (key nodes), nor a profile (traceEvents), nor a saved jaxpr (npusim_jaxpr)"
    )


def _reader(format: str) -> Callable[..., StepGraph]:
    module, function = READERS[format]
    return getattr(importlib.import_module(f"npusim.trace.imports.{module}"), function)
