"""npusim: a cycle-level simulator of neural processing units for training on the device.

    import npusim

    step = npusim.load("resnet18-swu")                         # one recorded training step
    hw = npusim.hardware("edge-16x16").replace(rows=32)        # a machine, changed
    base = npusim.simulate(step, hw)
    fast = npusim.simulate(step, hw, dataflow="reduction-spatial")
    fast.layers                                                # pandas: one row per operation
    both = base.compare(fast)
    both.plot.speedup()                                        # a matplotlib figure
    both.report("report.html")

| name                          | what it is                                                          |
|-------------------------------|---------------------------------------------------------------------|
| load, hardware                | a training step, a machine, by name or file                          |
| simulate, compare             | a step on a machine; several dataflows or methods of it              |
| read                          | results that `npusim run --out` or `Result.save` wrote               |
| names                         | what the catalogues hold                                             |
| Result, Comparison            | what these functions return                                          |
| StepGraph, Hardware, Dataflow | the values that go in                                                |
| NpusimError                   | a user's mistake, with what is allowed                               |
| trace, sweep                  | capture and re-shape steps; design-space sweeps                      |

Nothing is imported before it is used: `import npusim` takes milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim import sweep as sweep
    from npusim import trace as trace
    from npusim.api import compare as compare
    from npusim.api import hardware as hardware
    from npusim.api import load as load
    from npusim.api import names as names
    from npusim.api import read as read
    from npusim.api import simulate as simulate
    from npusim.comparison import Comparison as Comparison
    from npusim.dataflow import Dataflow as Dataflow
    from npusim.errors import NpusimError as NpusimError
    from npusim.graph import StepGraph as StepGraph
    from npusim.npu import Hardware as Hardware
    from npusim.results import Result as Result

__version__ = "0.1.0"

_HOMES = {
    "compare": "api", "hardware": "api", "load": "api", "names": "api", "read": "api", "simulate": "api",
    "Comparison": "comparison", "Dataflow": "dataflow", "Hardware": "npu", "NpusimError": "errors",
    "Result": "results", "StepGraph": "graph",
}  # fmt: skip
_MODULES = ("sweep", "trace")
__all__ = [
    "Comparison", "Dataflow", "Hardware", "NpusimError", "Result", "StepGraph", "compare", "hardware", "load", "names",
    "read", "simulate", "sweep", "trace",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"npusim.{name}")
    if name not in _HOMES:
        from npusim.errors import closest

        raise AttributeError(f"module 'npusim' has no attribute {name!r}{closest(name, __all__)}")
    found = getattr(import_module(f"npusim.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
