"""The Python API: what `import npusim` offers. Every function is also what the command line calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim.comparison import Comparison
    from npusim.dataflow import Dataflow
    from npusim.graph import StepGraph
    from npusim.mapping.choice import Choice
    from npusim.npu import Hardware
    from npusim.provenance import Request
    from npusim.results import Result
    from npusim.spill import MemoryLimit


def load(workload: str | Path, input_size: int | None = None, batch: int | None = None) -> StepGraph:
    """A training step: a name of `npusim.names("workloads")`, a trace file, or a layer list in TOML.

    `input_size` (square images) and `batch` re-shape it; its masks stay. Raises NpusimError.

    >>> step = npusim.load("resnet18-swu", batch=4)
    """
    from npusim import workload as workloads

    return _reshaped(workloads.find(workload)[1], input_size, batch)


def hardware(name: str | Path = "edge-16x16", **changes: Any) -> Hardware:
    """A machine: a name of `npusim.names("hardware")` or a TOML file; `changes` as for `Hardware.replace`.

    >>> npusim.hardware("edge-16x16", rows=32, cols=32)
    >>> npusim.hardware("edge-16x16").replace({"dram.bandwidth_bytes_per_s": "25.6GB/s"})
    """
    from npusim import npu

    machine = npu.load(name)
    return machine.replace(changes) if changes else machine


def names(kind: str) -> list[str]:
    """Every name of a catalogue: workloads, dataflows, hardware, energy or methods.

    >>> npusim.names("dataflows")
    """
    from npusim import catalogue, method
    from npusim.errors import unknown

    if kind == "methods":
        return method.names()
    if kind not in catalogue.KINDS:
        raise unknown("catalogue", kind, [*catalogue.KINDS, "methods"])
    return catalogue.names(kind)


def simulate(
    step: StepGraph | str | Path, hardware: Hardware | str | Path = "edge-16x16",
    dataflow: Dataflow | str | Path = "dense-os", method: str = "", *, engine: str = "fast", energy: str | None = None,
    objective: str = "cycles", mapping: str | Path | None = None, memory_limit: int | str | None = None,
    memory_over: str = "error",
) -> Result:  # fmt: skip
    """Simulate one training step on a machine.

    step, hardware, dataflow: values, names or files. method: a training method, "swu" or "last-k:k=2"; without one
    the step runs as it was recorded, masks included. engine: "fast" or "simpy" (the readable specification; equal
    results). energy: an energy table other than the machine's. objective: what tilings make least, "cycles", "energy"
    or "edp"; mapping: a file of tilings fixed by hand (`npusim show mapping`). memory_limit: bytes, or text such as
    "96KiB", for the tensors of the step; memory_over: what happens beyond, "error" (names the tensor) or "spill"
    (moves to slower memory and back are simulated). Raises NpusimError for names and values that do not fit,
    CapacityError (one of them) for an operation that does not fit the machine's buffers, or tensors beyond the limit.

    >>> r = npusim.simulate("resnet18-swu", npusim.hardware("edge-16x16", rows=32), dataflow="reduction-spatial")
    >>> r.cycles, r.energy_pj
    >>> r.layers[["name", "phase", "cycles", "utilisation"]]
    >>> npusim.simulate("tiny-cnn", memory_limit="100KiB", memory_over="spill").peak_bytes
    """
    choice, limit = _choice(objective, mapping), _limit(memory_limit, memory_over)
    graph, machine, request = _prepared(step, hardware, engine, energy, choice, limit)
    return evaluate(graph, machine, dataflow, method, request, _called("simulate", request, dataflow, method))


def compare(
    step: StepGraph | str | Path, hardware: Hardware | str | Path = "edge-16x16",
    dataflows: Sequence[Dataflow | str | Path] = ("dense-os",), methods: Sequence[str] = ("",), *,
    engine: str = "fast", energy: str | None = None, objective: str = "cycles", mapping: str | Path | None = None,
    memory_limit: int | str | None = None, memory_over: str = "error",
) -> Comparison:  # fmt: skip
    """Simulate a step with every one of `dataflows` and of `methods`; the first of both is the baseline.

    Arguments as for `simulate`; a method of "" is the step as it was recorded.

    >>> npusim.compare("resnet18-swu", dataflows=["dense-os", "selective-row", "reduction-spatial"]).table
    >>> npusim.compare("tiny-cnn", methods=["", "last-k:k=1", "bias-only"]).plot.speedup()
    """
    from npusim.comparison import Comparison

    choice, limit = _choice(objective, mapping), _limit(memory_limit, memory_over)
    graph, machine, request = _prepared(step, hardware, engine, energy, choice, limit)
    command = _called("compare", request, *dataflows, *methods)
    return Comparison.of(
        *(evaluate(graph, machine, flow, name, request, command) for name in methods for flow in dataflows)
    )


def read(folder: str | Path) -> Result | Comparison:
    """Results that `npusim run --out`, `npusim compare --out` or `save` wrote.

    A Result when there is one run, else a Comparison. They plot, report and compare as before; only the timeline needs
    a new simulation. Raises ResultsError for files that are missing or do not fit together.

    >>> npusim.simulate("tiny-cnn").save("results/tiny")
    >>> npusim.read("results/tiny").plot.energy()
    """
    from npusim import saved

    return saved.read(folder)


def evaluate(
    graph: StepGraph, machine: Hardware, dataflow: Dataflow | str | Path, method_text: str, request: Request,
    command: Sequence[str],
) -> Result:  # fmt: skip
    """`simulate` of a step and a machine; `request` and `command` are for the record."""
    from npusim import catalogue, results, spill
    from npusim import simulation as pipeline

    flow = catalogue.load_dataflow(dataflow) if isinstance(dataflow, str | Path) else dataflow
    if not request.dataflows and isinstance(dataflow, str | Path):
        request = replace(request, dataflows={flow.name: catalogue.find("dataflows", dataflow)})
    options: dict[str, Any] = {"engine_name": request.engine, "energy": request.energy, "choice": request.choice}
    if request.choice is not None:
        request.choice.check(graph)
    if not method_text:
        plan = None
        if request.memory is not None:
            graph, plan = spill.fit(graph, machine.precision.bits, request.memory)
        return results.of_run(pipeline.simulate(graph, machine, flow, **options), request, command, plan)
    from npusim import method, method_runs

    name, parameters = method.parse(method_text)
    chosen = method.load(name)
    times = None
    if chosen.timed:
        dense = method_runs.simulate_plan(method.apply("dense", graph), machine, flow, **options)
        times = method_runs.times_of(dense.runs[0])
    training = method.apply(chosen, graph, times, machine, **parameters)
    planned = method_runs.simulate_plan(training, machine, flow, method_text, request.memory, **options)
    return results.of_plan(planned, machine, request, command, graph)


def _choice(objective: str, mapping: str | Path | None) -> Choice | None:
    """How tilings are chosen; None for the defaults."""
    from npusim.mapping import choice

    return choice.choice(objective, mapping) if objective != "cycles" or mapping is not None else None


def _limit(size: int | str | None, over: str) -> MemoryLimit | None:
    from npusim import spill

    return spill.limit(size, over, "memory_limit", "memory_over")


def _prepared(
    step: Any, hardware_: Any, engine: str, energy: str | None, choice: Choice | None, limit: MemoryLimit | None
) -> tuple[StepGraph, Hardware, Request]:
    from npusim import engine as engines
    from npusim import npu
    from npusim import workload as workloads
    from npusim.errors import unknown
    from npusim.provenance import Request

    if engine not in engines.ENGINES:
        raise unknown("engine", engine, list(engines.ENGINES))
    source = None
    if isinstance(step, str | Path):
        asked = str(step)
        source, step = workloads.find(step)
    else:
        asked = step.name
    named = isinstance(hardware_, str | Path)
    machine = npu.load(hardware_) if named else hardware_
    name = str(hardware_) if named else machine.name
    request = Request(asked, name, engine=engine, energy=energy, source=source, memory=limit, choice=choice)
    return step, machine, request


def _reshaped(graph: StepGraph, input_size: int | None, batch: int | None) -> StepGraph:
    if input_size is None and batch is None:
        return graph
    from npusim.trace.reshape import reshape

    return reshape(graph, input_size, batch)


def _called(function: str, request: Request, *names: Any) -> list[str]:
    """What was called, for the record of provenance."""
    shown = [getattr(name, "name", str(name)) for name in names]
    return [f"npusim.{function}", request.workload, request.hardware, *filter(None, shown)]
