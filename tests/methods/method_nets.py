"""Networks that the tests of methods share."""

from functools import cache

from npusim import catalogue, npu, trace
from npusim.synthesis import from_layers


@cache
def workload(name):
    return trace.read(catalogue.find("workloads", name))


@cache
def machine(name="edge-16x16"):
    return npu.load(name)


@cache
def small(optimizer="sgd"):
    """A residual network with norms, a depthwise layer, a stride and a biased classifier."""
    layers = [
        {"name": "image", "kind": "input", "shape": (1, 3, 16, 16)},
        {"name": "stem", "kind": "conv", "out": 8, "kernel": 3, "padding": 1},
        {"name": "bn0", "kind": "batch_norm"},
        {"name": "relu0", "kind": "activation"},
        {"name": "conv1", "kind": "conv", "out": 8, "kernel": 3, "padding": 1},
        {"name": "bn1", "kind": "batch_norm"},
        {"name": "add", "kind": "add", "inputs": ["bn1", "relu0"]},
        {"name": "relu1", "kind": "activation"},
        {"name": "depth", "kind": "conv", "out": 8, "kernel": 3, "padding": 1, "groups": 8, "bias": True},
        {"name": "relu2", "kind": "activation"},
        {"name": "conv2", "kind": "conv", "out": 16, "kernel": 3, "padding": 1, "stride": 2},
        {"name": "bn2", "kind": "batch_norm"},
        {"name": "relu3", "kind": "activation"},
        {"name": "pool", "kind": "pool", "size": 1},
        {"name": "flatten", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 10, "bias": True},
    ]
    return from_layers(layers, "small", optimizer)


@cache
def plain():
    """Two linear layers: no convolution, no norm, no tap."""
    layers = [
        {"name": "input", "kind": "input", "shape": (4, 12)},
        {"name": "fc1", "kind": "linear", "out": 8},
        {"name": "fc2", "kind": "linear", "out": 3},
    ]
    return from_layers(layers, "plain")


def macs(graph):
    found = {}
    for op in graph.ops:
        found[op.phase] = found.get(op.phase, 0) + op.macs
    return found
