"""A small but whole training step, for tests of what users see."""

from dataclasses import replace

import numpy as np

from npusim.graph import Conv
from npusim.masks import Mask
from npusim.synthesis import from_layers

HOSTILE = "<script>alert(1)</script>\x1b[31m$x_1$=\u202e\"'&"


def small_step(name="small", density=0.25):
    """Two convolutions and a classifier with all phases; unstructured update masks unless `density` is None."""
    layers = [
        {"name": "input", "kind": "input", "shape": (2, 3, 8, 8)},
        {"name": "conv1", "kind": "conv", "out": 16, "kernel": 3, "padding": 1, "stride": 1},
        {"name": "bn1", "kind": "batch_norm"},
        {"name": "relu1", "kind": "activation"},
        {"name": "conv2", "kind": "conv", "out": 32, "kernel": 3, "padding": 1, "stride": 2},
        {"name": "flatten", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 10},
    ]
    graph = from_layers(layers, name=name)
    rng = np.random.default_rng(0)
    masks = {}
    for op in graph.phase("grad_weight") if density is not None else ():
        if isinstance(op.dims, Conv) and op.param:
            d = op.dims
            masks[op.param] = Mask.of(rng.random((d.k, d.c // d.groups, d.r, d.s)) < density)
    return replace(graph, update_masks=masks)
