"""What reads data from outside: the fuzzers and the tests drive the same targets."""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from npusim.errors import NpusimError
from reliability import foreign, stored
from reliability.target import ROOT, Target, files, scratch


def read_trace(path: Path) -> None:
    """A zip as it is, or what begins with '{' as the manifest of one that is otherwise in order."""
    from npusim import trace

    data = path.read_bytes()
    if data[:1] == b"{":
        members = _trace_members()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", data)
            for name, content in members.items():
                if name != "manifest.json" and name.encode() in data:
                    archive.writestr(name, content)
    graph = trace.read(path)
    graph.digest()
    str(graph)


@cache
def _trace_members() -> dict[str, bytes]:
    """Members of the trace of a small step with two masks."""
    path = scratch() / "seed.npz"
    path.write_bytes(_trace())
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def _trace() -> bytes:
    import numpy as np

    from npusim import trace
    from npusim.masks import Mask
    from npusim.synthesis import from_layers

    net = [
        {"name": "in", "kind": "input", "shape": (1, 2, 5, 5)},
        {"name": "conv", "kind": "conv", "out": 2, "kernel": 3, "padding": 1, "stride": 2},
        {"name": "pool", "kind": "pool", "size": 1},
        {"name": "flat", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 3},
    ]
    shapes = {"conv.weight": (2, 2, 3, 3), "fc.weight": (3, 2, 1, 1)}
    masks = {name: Mask.of(np.arange(np.prod(shape)).reshape(shape) % 3 == 0) for name, shape in shapes.items()}
    path = scratch() / "seed.npz"
    trace.write(replace(from_layers(net, "seed"), update_masks=masks), path)
    return path.read_bytes()


def trace_seeds() -> list[bytes]:
    return [_trace(), _trace_members()["manifest.json"]]


def read_hardware(path: Path) -> None:
    from npusim import npu

    machine = npu.load(path)
    str(machine)
    machine.digest()


def read_energy(path: Path) -> None:
    from npusim.energy import table

    table.load(path)


def read_sweep(path: Path) -> None:
    from itertools import islice

    from npusim.sweep import spec

    found = spec.load(path)
    list(islice(found.all_points(), 50))


def read_layers(path: Path) -> None:
    from npusim.synthesis import from_file

    graph = from_file(path)
    graph.digest()
    str(graph)


def read_dram(path: Path) -> None:
    from npusim.engine.dram_standards import load_standard

    load_standard(str(path))


def read_tinyengine(path: Path) -> None:
    from npusim.trace import tinyengine

    tinyengine.read(path).digest()


def tinyengine_seeds() -> list[bytes]:
    """Some operations of a compiler's file, from its beginning and from its end."""
    (path,) = (ROOT / "tests" / "data" / "tinyengine").glob("*.json.gz")
    ops = json.loads(gzip.decompress(path.read_bytes()))
    return [json.dumps(ops[:3]).encode()]


def read_onnx(path: Path) -> None:
    from npusim.trace.imports.onnx_model import from_onnx

    from_onnx(path).digest()


def read_layer_table(path: Path) -> None:
    from npusim.trace.imports.table import from_layer_table

    from_layer_table(path).digest()


def read_topology(path: Path) -> None:
    from npusim.scalesim import topology
    from npusim.trace.imports.topology import from_scalesim

    topology.read(path)
    from_scalesim(path)


def read_scalesim_config(path: Path) -> None:
    from npusim.scalesim import config

    config.read(path)


def read_texts(path: Path) -> None:
    """Values of the command line, one per line: settings, dataflow names, methods with parameters, ranges."""
    from npusim import catalogue, method, npu
    from npusim.cli import options
    from npusim.sweep import axes

    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    machine = npu.load("mcu-8x8")
    understood, problems = 0, []
    for line in lines[:4]:
        key, _, value = line.partition("=")
        for attempt in (
            lambda line=line: machine.replace(options.settings_of([line])),
            lambda line=line: [catalogue.find("dataflows", name) for name in options.names_of(line)],
            lambda line=line: _method_values(method, line),
            lambda key=key, value=value: axes.parse(axes.full_key(key), value),
        ):
            try:
                attempt()
                understood += 1
            except NpusimError as error:
                assert str(error).strip()
                problems.append(error)
    if not understood:
        raise problems[0]


def _method_values(method: Any, line: str) -> None:
    name, values = method.parse(line)
    method.load(name).values(values)


TOML_TOKENS = ("=", "[", "]", "[[", "'''", '"""', "inf", "nan", "1e400", "0x", "-1", "true", "{", "}", "1979-05-27")
LAYER_TOKENS = (
    "name", "kind", "input", "conv", "linear", "matmul", "batch_norm", "pool", "view", "flatten", "inputs", "shape",
    "kernel", "stride", "padding", "dilation", "groups", "bias", "transposed", "average", "size", "optimizer", "meta",
)  # fmt: skip
TARGETS = {
    target.name: target
    for target in (
        *foreign.TARGETS,
        *stored.TARGETS,
        Target("trace", ".npz", read_trace, trace_seeds, ('"ops"', '"dims"', '"tensors"', '"masks"', "PK\x05\x06")),
        Target("hardware", ".toml", read_hardware, files("npusim/data/hardware/*.toml"), TOML_TOKENS),
        Target("energy", ".toml", read_energy, files("npusim/data/energy/*.toml"), (*TOML_TOKENS, "base")),
        Target(
            "sweep", ".toml", read_sweep, files("experiments/sweeps/*.toml"),
            (*TOML_TOKENS, "..", "log2", "step", "linear", "[grid]", "[[linked]]", "[random]", "<=", "KiB"),
        ),
        Target("layers", ".toml", read_layers, lambda: [LAYERS, ATTENTION], (*TOML_TOKENS, *LAYER_TOKENS)),
        Target("dram", ".toml", read_dram, files("npusim/data/dram/*.toml"), TOML_TOKENS),
        Target(
            "tinyengine", ".json", read_tinyengine, tinyengine_seeds,
            ("nn.mcuconv2d", "nn.conv2d_transpose", "nn.conv2d", "reshape", "attrs", "NaN", "Infinity"),
        ),
        Target("onnx", ".onnx", read_onnx, files("tests/data/imports/*.onnx"), ("Conv", "Gemm", "weight", "Relu")),
        Target("layer-table", ".csv", read_layer_table, lambda: [TABLE], (",", "conv", "3x3", "input", "out")),
        Target("topology", ".csv", read_topology, lambda: [TOPOLOGY, GEMMS], (",", "DP", "1:4", "2147483648")),
        Target("scalesim-config", ".cfg", read_scalesim_config, lambda: [SCALESIM], ("[", "]", "=", "USER", "CALC")),
        Target(
            "command-line", ".txt", read_texts, lambda: COMMANDS.splitlines(),
            ("array.rows", "..", " log2", "KiB", "GB/s", "last-k", "swu", ":", "=", ","), names_file=False,
            most_bytes=400,
        ),
    )
}  # fmt: skip

TABLE = b"""name,kind,shape,out,kernel,stride,padding
in,input,1x3x8x8,,,,
conv,conv,,4,3x3,2,1
flat,flatten,,,,,
fc,linear,,10,,,
"""
LAYERS = b"""name = "net"
optimizer = "adam"
[[layers]]
name = "in"
kind = "input"
shape = [2, 3, 8, 8]
[[layers]]
name = "conv"
kind = "conv"
out = 4
kernel = [3, 3]
stride = 2
padding = 1
groups = 1
bias = true
[[layers]]
name = "bn"
kind = "batch_norm"
[[layers]]
name = "pool"
kind = "pool"
kernel = 2
[[layers]]
name = "sum"
kind = "add"
inputs = ["pool", "pool"]
[[layers]]
name = "flat"
kind = "flatten"
[[layers]]
name = "fc"
kind = "linear"
out = 5
"""
ATTENTION = b"""name = "tokens"
[[layers]]
name = "in"
kind = "input"
shape = [1, 4, 6]
[[layers]]
name = "q"
kind = "linear"
out = 6
[[layers]]
name = "k"
kind = "linear"
inputs = ["in"]
out = 6
[[layers]]
name = "scores"
kind = "matmul"
inputs = ["q", "k"]
transposed = true
[[layers]]
name = "soft"
kind = "softmax"
[[layers]]
name = "view"
kind = "view"
shape = [16]
"""
TOPOLOGY = b"""Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 224, 224, 7, 7, 3, 64, 2,
Conv2DP, 56, 56, 3, 3, 64, 1, 1, 2:4,
"""
GEMMS = b"Layer, M, N, K,\nfc, 128, 10, 512,\n"
SCALESIM = b"""[general]
run_name = scale_example
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 10
MemoryBanks: 1
[run_presets]
InterfaceBandwidth: USER
"""
COMMANDS = (
    b"array.rows=32\nbuffers.a.bytes=96KiB\nclock_hz=1GHz\ndense-os,selective-row\nlast-k:k=2\n"
    b"swu:density=0.1:seed=3\nmcunetv3:scheme=custom:biases=1\narray.cols=4..64 log2\nbatch=1..8 step 2"
)
