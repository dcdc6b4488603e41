"""Points become jobs: what they name is found and read, machines are checked, every job gets its key.

A job holds digests instead of files; the files travel once to each worker (`Resources`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import catalogue, engine, npu
from npusim.energy.cacti import binary
from npusim.errors import ConfigError, NpusimError, closest
from npusim.sweep.axes import RUN_KEYS

if TYPE_CHECKING:
    from npusim.graph import StepGraph
    from npusim.npu import Hardware
    from npusim.sweep.spec import Limit, Spec

# Code that decides no number: changing it leaves stored results valid.
PRESENTATION = ("cli/", "html/", "validate/", "sweep/", "plot.py", "report.py", "breakdown.py", "text.py", "atomic.py",
                "provenance.py", "__main__.py", "__init__.py", "api.py", "results.py", "comparison.py", "saved.py",
                "accessor.py", "roofline.py", "memory_plot.py", "notebook.py", "timeline.py")  # fmt: skip
DECIDING = ("sweep/evaluate.py", "sweep/metrics.py")
SHOWN_PROBLEMS = 50


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs; `workload`, `energy` and the values of `dataflows` are digests of resources.

    `dataflows`: the wanted one first, then those that it may fall back to or choose from. `machine`: the keys of
    a Hardware. `step`: digest of the step after re-shaping. `method`: "name:key=value" or "".
    `objective` and `mapping` (digest of a mapping file or ""): how tilings are chosen.
    """

    key: str
    workload: str
    step: str
    input_size: int | None
    batch: int | None
    dataflows: tuple[tuple[str, str], ...]
    engine: str
    energy: str
    machine: str
    method: str = ""
    objective: str = "cycles"
    mapping: str = ""

    @property
    def resources(self) -> tuple[str, ...]:
        mapping = (self.mapping,) if self.mapping else ()
        return (self.workload, self.energy, *(digest for _, digest in self.dataflows), *mapping)


@dataclass(frozen=True, slots=True)
class Resource:
    """A file by content: `name` keeps its stem and suffix."""

    name: str
    content: bytes


@dataclass
class Plan:
    """Points of a sweep in order: (point, job); of bad ones (point, message); how many the constraints left out."""

    points: list[tuple[dict[str, Any], Job]] = field(default_factory=list)
    invalid: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    left_out: int = 0


def plan(spec: Spec, resolver: Resolver, tick: Callable[[int], None] = lambda n: None) -> Plan:
    """Every point of `spec` checked and resolved; nothing is simulated."""
    found = Plan()
    for number, point in enumerate(spec.all_points(), start=1):
        try:
            job = resolver.job(point, spec.limits)
        except NpusimError as error:
            found.invalid.append((point, str(error)))
            continue
        finally:
            tick(number)
        if job is None:
            found.left_out += 1
        else:
            found.points.append((point, job))
    return found


def refuse(invalid: Iterable[tuple[Mapping[str, Any], str]], total: int, keys: Iterable[str]) -> ConfigError:
    """The error that lists bad points; equal messages are joined."""
    by_message: dict[str, list[str]] = {}
    for point, message in invalid:
        shown = ", ".join(f"{key} = {point[key]}" for key in keys if key in point)
        by_message.setdefault(message, []).append(shown or "the only point")
    count = sum(map(len, by_message.values()))
    lines = [f"{count} of {total} points cannot be simulated (--skip-invalid records them and goes on):"]
    for message, points in by_message.items():
        lines += [f"  {point}" for point in points] + ["    " + message.replace("\n", "\n    ")]
    if len(lines) > SHOWN_PROBLEMS:
        lines = [*lines[:SHOWN_PROBLEMS], f"  ... and {len(lines) - SHOWN_PROBLEMS} more lines"]
    return ConfigError("\n".join(lines))


class Resolver:
    """Finds, reads and checks what points name; everything is read once."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self._known: dict[Any, Any] = {}

    def job(self, point: Mapping[str, Any], limits: Iterable[Limit] = ()) -> Job | None:
        """The job of a point; None when a constraint leaves it out. NpusimError says what is wrong with it."""
        changes = tuple((key, value) for key, value in point.items() if key not in RUN_KEYS)
        machine_id = (point["hardware"], changes, point.get("energy"))
        machine_json, machine_digest, energy, amounts = self._once(machine_id, self._machine)
        if not all(limit.holds(amounts[limit.quantity]) for limit in limits):
            return None
        if point["engine"] not in engine.ENGINES:
            hint = closest(point["engine"], list(engine.ENGINES))
            raise ConfigError(f"engine {point['engine']!r}{hint}; known: {', '.join(engine.ENGINES)}")
        size, batch = point.get("input_size"), point.get("batch")
        workload, step, masked = self._once(("step", point["workload"], size, batch), self._step)
        name = point["dataflow"]
        dataflows, selective = self._once(("dataflow", name), self._dataflows)
        method = point.get("method", "")
        training = self._once(("method", point["workload"], size, batch, method), self._method) if method else ""
        if selective and not masked and not method:
            raise ConfigError(
                f"dataflow {name!r} skips work by update masks, but workload {point['workload']!r} has none; "
                "use a recorded workload with masks, a method that selects (swu:density=0.1), or a dense dataflow"
            )
        objective, file = point.get("objective", "cycles"), point.get("mapping", "")
        mapping, chosen = self._once(("mapping", objective, file, point["workload"], size, batch), self._mapping)
        identity: tuple = (machine_digest, step, dataflows, point["engine"], energy, code_version())
        identity += (method, training) if method else ()
        cacti = binary()
        identity += (f"CACTI {cacti.sha256}",) if cacti else ()
        identity += (chosen,) if chosen else ()
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return Job(
            key,
            workload,
            step,
            size,
            batch,
            dataflows,
            point["engine"],
            energy,
            machine_json,
            method,
            objective,
            mapping,
        )

    def _once(self, asked: Any, find: Callable) -> Any:
        """The answer to a question that many points ask; a mistake is remembered too."""
        if asked not in self._known:
            try:
                self._known[asked] = find(*asked)
            except NpusimError as error:
                self._known[asked] = error
        answer = self._known[asked]
        if isinstance(answer, NpusimError):
            raise answer
        return answer

    def _machine(self, name: str, changes: tuple, energy: str | None):
        from npusim.energy import account, area

        base = self._once(("hardware", name), self._hardware)
        machine: Hardware = base.replace(dict(changes)) if changes else base
        digest, table, figures = self._once(("energy", energy or machine.energy.table), self._energy)
        account.prices(machine, table, figures)
        amounts = {
            "area_mm2": area.area(machine, table, figures).total_mm2,
            "sram_bytes": machine.sram_bytes,
            "pes": machine.peak_macs_per_cycle,
            "peak_macs_per_s": machine.peak_macs_per_cycle * machine.clock_hz,
        }
        return machine.model_dump_json(), machine.digest(), digest, amounts

    def _hardware(self, _: str, name: str) -> Hardware:
        return npu.load(name)

    def _energy(self, _: str, name: str):
        from npusim.energy import sram, table

        loaded = table.load(name)
        content = loaded.model_dump_json().encode()
        return self._keep(Resource(f"{loaded.name}.json", content)), loaded, sram.load()

    def _step(self, _: str, name: str, size: int | None, batch: int | None):
        digest, graph = self._once(("workload", name), self._workload)
        graph = reshaped(graph, size, batch)
        return digest, graph.digest(), bool(graph.update_masks)

    def _method(self, _: str, workload: str, size: int | None, batch: int | None, text: str) -> str:
        """Digest of a method's file; the method is tried on the step, unless it needs measured times or a machine."""
        from npusim import method

        name, parameters = method.parse(text)
        chosen = method.load(name)
        chosen.values(parameters)
        if not (chosen.timed or chosen.machine):
            _, graph = self._once(("workload", workload), self._workload)
            method.apply(chosen, reshaped(graph, size, batch), None, None, **parameters)
        return hashlib.sha256(Path(_file(chosen)).read_bytes()).hexdigest()

    def _mapping(self, _: str, objective: str, file: str, workload: str, size: int | None, batch: int | None):
        """Digests of a mapping file and of the choice that it makes with the objective; "" for the defaults."""
        if objective == "cycles" and not file:
            return "", ""
        from npusim.mapping.choice import choice

        found = choice(objective, file or None)
        _, graph = self._once(("workload", workload), self._workload)
        found.check(reshaped(graph, size, batch))
        return self._keep(Resource(Path(file).name, Path(file).read_bytes())) if file else "", found.digest()

    def _workload(self, _: str, name: str):
        path = workload_file(name)
        resource = Resource(path.name, path.read_bytes())
        return self._keep(resource), read_step(path)

    def _dataflows(self, _: str, name: str):
        """(name, digest) of a dataflow and of all that it may hand work to, and whether it needs masks."""
        found: dict[str, str] = {}
        waiting, selective = [name], False
        while waiting:
            current = waiting.pop()
            if current in found:
                continue
            path = catalogue.find("dataflows", current)
            found[current] = self._keep(Resource(path.name, path.read_bytes()))
            flow = catalogue.load_dataflow(current)
            selective = selective or (current == name and flow.selective)
            waiting += [other for other in (flow.fallback, *flow.choices) if other]
        return tuple(found.items()), selective

    def _keep(self, resource: Resource) -> str:
        digest = hashlib.sha256(resource.name.encode() + b"\0" + resource.content).hexdigest()
        self.resources[digest] = resource
        return digest


def workload_file(name: str) -> Path:
    """The file of a workload: a layer list (.toml), a trace, or a name of the catalogue."""
    return Path(name) if name.endswith(".toml") and Path(name).is_file() else catalogue.find("workloads", name)


def read_step(path: Path) -> StepGraph:
    """The step of a trace or a layer list."""
    if path.suffix == ".toml":
        from npusim.synthesis import from_file

        return from_file(path)
    from npusim import trace

    return trace.read(path)


def reshaped(graph: StepGraph, size: int | None, batch: int | None) -> StepGraph:
    """The step for another image size or batch; None keeps what was recorded."""
    if size is None and batch is None:
        return graph
    from npusim.trace.reshape import reshape

    return reshape(graph, size, batch)


def _file(method: Any) -> str:
    """The file that defines a method's rewrite."""
    return method.rewrite.__code__.co_filename


def invalid_key(point: Mapping[str, Any]) -> str:
    """Key of a point that cannot be resolved: what was asked, and the code that refused it."""
    return hashlib.sha256(json.dumps(["invalid", dict(point), code_version()], sort_keys=True).encode()).hexdigest()


@cache
def code_version() -> str:
    """sha256 over all code and figures that decide a result."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    files = [*package.rglob("*.py"), *(package / "data" / "energy").glob("*.csv")]
    for path in sorted(files):
        name = path.relative_to(package).as_posix()
        if name in DECIDING or not name.startswith((*PRESENTATION, "_builtin/")):
            digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
