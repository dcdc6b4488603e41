"""Random training steps, machines, dataflows and methods, all drawn from one `random.Random`.

A long run draws case `number` of `seed` from `Random(f"{seed}/{number}")`, so any case can be made again by its two
numbers; a test draws the same through Hypothesis (`strategy()`), which shrinks what fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from npusim import catalogue, layers, method, structure
from npusim.engine.dram_standards import load_standard, standards
from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv, StepGraph
from npusim.masks import Mask
from npusim.npu import Hardware
from npusim.synthesis import STATES, from_layers

ENERGY = str(Path(__file__).with_name("energy.toml"))
CROSSBAR_ENERGY = str(Path(__file__).with_name("energy-crossbars.toml"))
DRAWS = 12
COMMANDS = 0.15  # share of machines with command-level memory
PRECISIONS = (("int", 8, 32), ("int", 16, 32), ("bf", 16, 32), ("fp", 16, 32), ("fp", 32, 32))


@dataclass(frozen=True)
class Case:
    """One step on one machine with a dataflow and a method; `masked`: random update masks on what the method leaves.

    `change` is what is improved for the monotonicity checks, `mask_seed` draws the masks.
    """

    graph: StepGraph
    hardware: Hardware
    dataflow: str
    method: str
    parameters: tuple[tuple[str, Any], ...]
    masked: bool
    mask_seed: int
    change: str

    @property
    def spec(self) -> str:
        """The method as the command line takes it."""
        return ":".join([self.method, *(f"{key}={value}" for key, value in self.parameters)])


CHANGES = ("bandwidth", "latency", "channels", "a", "b", "accumulator", "mask", "rows", "cols", "lanes")


@cache
def pairs() -> tuple[tuple[str, str], ...]:
    """Every dataflow with every method."""
    return tuple((flow, name) for flow in catalogue.names("dataflows") for name in method.names())


def case(random: Random, number: int) -> Case:
    """Case `number`: its dataflow, method and change follow from the number, the rest from `random`."""
    flow, name = pairs()[number % len(pairs())]
    change = CHANGES[number // len(pairs()) % len(CHANGES)]
    hardware = machine(random, crossbars=method.load(name).machine or random.random() < 0.05)
    graph, chosen = fitting_step(random, name, parameters(random, name), hardware)
    masked, mask_seed = random.random() < 0.8, random.randrange(2**32)
    return Case(graph, hardware, flow, name, chosen, masked, mask_seed, change)


def fitting_step(
    random: Random, name: str, chosen: tuple[tuple[str, Any], ...], hardware: Hardware
) -> tuple[StepGraph, tuple[tuple[str, Any], ...]]:
    """A step that the method fits, as far as a few draws find one; parameters that contradict are dropped."""
    times: dict[tuple[str, str], int] | None = None
    for _ in range(DRAWS):
        graph = step(random)
        if method.load(name).timed:
            times = {(op.name, op.phase): 10 for op in graph.ops}
        try:
            method.apply(name, graph, times, hardware, **dict(chosen))
        except method.MisfitError:
            continue
        except TraceError:
            break
        except NpusimError:
            return graph, ()
        break
    return graph, chosen


def numbered(seed: int, number: int) -> Case:
    """Case `number` of a long run."""
    return case(Random(f"{seed}/{number}"), number)


def strategy():
    """Hypothesis strategy of cases."""
    from hypothesis import strategies as st

    numbers = st.integers(0, len(pairs()) * len(CHANGES) - 1)
    return st.builds(case, st.randoms(use_true_random=False), numbers)


def machine(random: Random, crossbars: bool = False) -> Hardware:
    """A machine that keeps the rules of `npusim.npu`, with buffers from some hundred bytes up."""
    arithmetic, width, accumulator = random.choice(PRECISIONS[:2] if crossbars else PRECISIONS)
    rows, cols = (random.choice((1, 2, 3, 4, 5, 8, 13, 16)) for _ in range(2))
    timing = {} if random.random() < 0.6 else array_timing(random)
    data = {
        "name": "random", "description": "", "source": "",
        "clock_hz": random.choice((10**6, 123_456_789, 10**9, 10**11)),
        "array": {
            "rows": rows, "cols": cols, "fold_overlap": random.random() < 0.5,
            "pe_registers": random.choice((0, 1, 3, 16, 64)), "gating": random.random() < 0.5, "timing": timing,
        },
        "precision": {
            "arithmetic": arithmetic, "activation_bits": width, "weight_bits": width,
            "gradient_bits": width, "weight_gradient_bits": random.choice((width, accumulator)),
            "state_bits": random.choice((width, 32)), "accumulator_bits": accumulator,
        },
        "buffers": {
            "a": buffer(random, 9, 14), "b": buffer(random, 9, 14), "accumulator": buffer(random, 9, 14),
            "mask": buffer(random, 6, 10),
        },
        "dma": {"read_channels": random.randint(1, 4), "write_channels": random.randint(1, 4)},
        "dram": {
            "standard": "LPDDR4", "model": "ideal", "latency_ns": random.choice((0, 1, 17, 100)),
            "bandwidth_bytes_per_s": random.choice((10**6, 333_000_000, 25_600_000_000, 10**12)),
            "burst_bytes": random.choice((1, 7, 32, 64, 256)),
        },
        "vector": {"lanes": random.choice((1, 3, 8, 64))},
        "energy": {"table": ENERGY, "cell": "lop", "node_nm": 45},
    }  # fmt: skip
    ratio = data["clock_hz"] / data["dram"]["bandwidth_bytes_per_s"]
    if ratio > 1000:
        data["clock_hz"] = 10**6
    if not crossbars and random.random() < COMMANDS:
        data["clock_hz"] = random.choice((10**8, 800_000_000, 10**9))
        data["dram"] |= command_memory(random)
    if crossbars:
        data["energy"] |= {"table": CROSSBAR_ENERGY, "node_nm": 28}
        data["crossbar"] = crossbar(random)
    return Hardware.model_validate(data)


def command_memory(random: Random) -> dict[str, Any]:
    """A standard behind a controller: every DRAM command is simulated."""
    device, controller = random.choice(standards()), random.choice(("dramsim3-like", "ramulator-like"))
    keys = {"device": device, "controller": controller, "outstanding": random.choice((1, 4, 64)),
            "path_ns": random.choice((0, 30))}  # fmt: skip
    return {"model": "commands", "commands": keys, "burst_bytes": load_standard(device, controller).burst_bytes}


def crossbar(random: Random) -> dict[str, Any]:
    """Crossbars of a size in which a weight of 16 bits fits, enough of them for the largest random step."""
    return {
        "rows": random.choice((4, 7, 16, 64)), "cols": random.choice((16, 20, 64)), "cell_bits": random.randint(1, 4),
        "dac_bits": 1, "adcs": random.choice((1, 2, 8)), "adc_bits": 8, "adc_rate_hz": random.choice((10**8, 10**9)),
        "read_ns": random.choice((0, 10, 100)), "write_ns": random.choice((0, 50)), "write_pulses": 8,
        "crossbars": 2**20, "crossbars_per_pe": random.choice((1, 3, 96)), "backward_copy": random.random() < 0.5,
        "endurance_writes": 10**8,
    }  # fmt: skip


def array_timing(random: Random) -> dict[str, Any]:
    """Latencies of an array, some of them not the ideal ones."""
    command = random.choice((1, 1, 4))
    return {
        "start_cycles": random.randint(0, 9), "output_cycles": random.randint(0, 5), "mac_cycles": random.randint(1, 3),
        "accumulator_preload": random.random() < 0.5, "first_preload": random.random() < 0.5,
        "preload_gap_cycles": random.randint(0, 3), "drain": random.choice(("down", "across", "none")),
        "live_columns_only": random.random() < 0.5, "command_vectors": command,
        "least_vectors": random.randint(1, command),
    }  # fmt: skip


def buffer(random: Random, low: int, high: int) -> dict[str, Any]:
    """A buffer of 2^low to 2^high bytes."""
    banks = random.choice((1, 2, 4))
    return {
        "bytes": 2 ** random.randint(low, high), "bytes_per_cycle": banks * random.choice((1, 2, 4, 16)),
        "banks": banks, "double_buffered": random.random() < 0.7,
    }  # fmt: skip


def step(random: Random) -> StepGraph:
    """A network of one to six layers with all phases and updates."""
    net = random.choice((image_net, image_net, image_net, token_net))
    return from_layers(net(random), "random", random.choice(tuple(STATES)))


def image_net(random: Random) -> list[dict[str, Any]]:
    """Convolutions, norms, activations, pools and residual sums, then perhaps a classifier."""
    shape = (random.randint(1, 3), random.randint(1, 6), random.randint(3, 10), random.randint(3, 10))
    net, values = [{"name": "in", "kind": "input", "shape": shape}], [("in", shape)]
    for number in range(random.randint(1, 5)):
        kind = random.choice(("conv", "conv", "conv", "batch_norm", "activation", "pool", "add", "mul"))
        name, previous = f"{kind}{number}", values[-1][1]
        layer: dict[str, Any] = {"name": name, "kind": kind}
        if kind == "conv":
            layer |= convolution(random, previous)
        elif kind == "pool":
            layer |= pooling(random)
        elif kind in ("add", "mul"):
            twins = [other for other, extent in values[:-1] if extent == previous and other != "in"]
            if not twins:
                continue
            layer["inputs"] = (values[-1][0], random.choice(twins))
        try:
            extent = layers.shapes(layers.Layer(**layer), [previous, previous])[1]
        except layers.Misfit:
            continue
        net.append(layer)
        values.append((name, extent))
    if random.random() < 0.6 or len(net) == 1:
        net.append({"name": "flat", "kind": "flatten"})
        net.append({"name": "fc", "kind": "linear", "out": random.randint(1, 12), "bias": random.random() < 0.5})
    return net


def convolution(random: Random, extent: Sequence[int]) -> dict[str, Any]:
    """Window, stride, padding, dilation and groups of a convolution on batch x channels x rows x columns."""
    channels = extent[1]
    groups = random.choice([g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0])
    return {
        "out": groups * random.randint(1, max(1, 20 // groups)), "kernel": (random.randint(1, 3), random.randint(1, 3)),
        "stride": (random.randint(1, 3), random.randint(1, 3)), "padding": (random.randint(0, 2), random.randint(0, 2)),
        "dilation": (random.randint(1, 2), random.randint(1, 2)), "groups": groups, "bias": random.random() < 0.3,
    }  # fmt: skip


def pooling(random: Random) -> dict[str, Any]:
    """A window with its stride, or an adaptive average."""
    if random.random() < 0.3:
        return {"size": random.randint(1, 3)}
    kernel = random.randint(1, 3)
    padding = random.randint(0, kernel // 2)
    return {"kernel": kernel, "stride": random.randint(1, 3), "padding": padding, "average": random.random() < 0.5}


def token_net(random: Random) -> list[dict[str, Any]]:
    """Linear layers, norms and perhaps one attention on batch x tokens x features."""
    features = random.randint(1, 12)
    shape = (random.randint(1, 3), random.randint(1, 8), features)
    net: list[dict[str, Any]] = [{"name": "in", "kind": "input", "shape": shape}]
    for number in range(random.randint(0, 2)):
        net.append({"name": f"norm{number}", "kind": "layer_norm"})
        net.append({"name": f"act{number}", "kind": "activation"})
    if random.random() < 0.6:
        source, width = net[-1]["name"], random.randint(1, 8)
        net += [{"name": part, "kind": "linear", "inputs": (source,), "out": width} for part in ("q", "k", "v")]
        net.append({"name": "scores", "kind": "matmul", "inputs": ("q", "k"), "transposed": True})
        net.append({"name": "soft", "kind": "softmax"})
        net.append({"name": "mix", "kind": "matmul", "inputs": ("soft", "v")})
    net.append({"name": "fc", "kind": "linear", "out": random.randint(1, 20), "bias": random.random() < 0.5})
    return net


def parameters(random: Random, name: str) -> tuple[tuple[str, Any], ...]:
    """Some parameters of a method at random values within their ranges, the others left alone."""
    chosen: list[tuple[str, Any]] = []
    for parameter in method.load(name).parameters:
        if random.random() < 0.5:
            continue
        low, high = parameter.low, min(parameter.high, 8 if isinstance(parameter.default, int) else parameter.high)
        if isinstance(parameter.default, str):
            if not parameter.choices:
                continue
            value: Any = random.choice(parameter.choices)
        elif isinstance(parameter.default, int):
            value = random.randint(int(low), int(max(low, high)))
        else:
            value = random.choice((low, high, round(low + (high - low) * random.random(), 3)))
        chosen.append((parameter.name, value))
    return tuple(chosen)


def with_masks(graph: StepGraph, seed: int) -> StepGraph:
    """`graph` with an update mask of a random structure and density on most weights that get a gradient."""
    random, masks = Random(seed), {}
    for op in graph.phase("grad_weight"):
        if not isinstance(op.dims, Conv) or not op.param or random.random() < 0.15:
            continue
        d = op.dims
        shape = (d.k, d.c // d.groups, d.r, d.s)
        kind = structure.Structure(
            random.choice(structure.MASK_STRUCTURES), random.randint(1, 8), random.choice((4, 16))
        )
        density = random.choice((0.0, 1.0, random.random(), random.random()))
        masks[op.param] = Mask.of(np.asarray(structure.generate(shape, kind, density, random.randrange(2**31))))
    return replace(graph, update_masks=masks)
