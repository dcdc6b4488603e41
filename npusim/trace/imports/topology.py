"""SCALE-Sim topologies as training steps: every layer in all phases, side by side.

A topology lists sizes and does not say what reads what, so every layer has an input of its own. SCALE-Sim knows
forward passes only: the gradients are synthesised (no gradient of the first layer's input), updates are plain SGD
unless another optimizer is named. A window that reaches over the edge gets the rows and columns it asks for, so that
MACs are SCALE-Sim's. The channels of a depthwise line (`DP` in its name) become one grouped convolution.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from npusim.errors import NpusimError
from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.scalesim import topology
from npusim.synthesis import STATES

if TYPE_CHECKING:
    from npusim.scalesim.topology import Layer

_CHANNEL = re.compile(r"(.*DP.*)Channel_\d+")


def from_scalesim(path: str | Path, *, name: str = "", optimizer: str = "sgd") -> StepGraph:
    """One training step of the layers in a SCALE-Sim topology CSV, convolutions or GEMMs; batch 1."""
    if optimizer not in STATES:
        raise NpusimError(f"unknown optimizer {optimizer!r}; allowed: {', '.join(STATES)}")
    found = _named(topology.read(path))
    tensors: dict[str, Tensor] = {}
    forward, backward, updates = [], [], []
    for index, (title, dims) in enumerate(found.items()):
        x, w, y = f"{title}:x", f"{title}.weight", f"{title}:y"
        shape = (dims.k, dims.c // dims.groups, dims.r, dims.s)
        made = [Tensor(x, (1, dims.c, dims.h, dims.w), "activation"), Tensor(w, shape, "weight")]
        made += [Tensor(y, (1, dims.k, dims.p, dims.q), "activation")]
        made += [Tensor(f"{t.name}.grad", t.shape, kind, grad_of=t.name)
                 for t, kind in zip(made, ("gradient", "weight_gradient", "gradient"), strict=True)]  # fmt: skip
        state = tuple(f"{w}.{part}" for part in STATES[optimizer])
        made += [Tensor(part, shape, "state") for part in state]
        tensors |= {t.name: t for t in made}
        forward.append(Op(title, "forward", "conv", dims, (x, w), (y,), w))
        backward.append(Op(title, "grad_weight", "conv", dims, (f"{y}.grad", x), (f"{w}.grad",), w))
        if index:
            backward.append(Op(title, "grad_input", "conv", dims, (f"{y}.grad", w), (f"{x}.grad",), w))
        size = Vector(tensors[w].elements)
        updates.append(Op(title, "update", optimizer, size, (w, f"{w}.grad", *state), (w, *state), w))
    meta = {
        "made_by": "npusim.trace.from_scalesim", "source": Path(path).name, "method": "dense", "batch": 1,
        "kind": "SCALE-Sim topology; layers are not connected; backward phases synthesised; no masks",
    }  # fmt: skip
    graph = StepGraph(name or Path(path).stem, (*forward, *backward[::-1], *updates), tensors, meta=meta)
    graph.verify()
    return graph


def _named(layers: list[Layer]) -> dict[str, Conv]:
    """Dimensions by a name that is there once."""
    found: dict[str, Conv] = {}
    for title, group in groupby(layers, key=lambda layer: _title(layer.name)):
        parts = list(group)
        channels = len(parts) if _CHANNEL.fullmatch(parts[0].name) else 1
        for part in parts[:1] if channels > 1 else parts:
            unique, count = title or "layer", 1
            while unique in found:
                count += 1
                unique = f"{title or 'layer'}@{count}"
            found[unique] = _dims(part, channels)
    return found


def _title(name: str) -> str:
    match = _CHANNEL.fullmatch(name)
    return match[1] if match else name


def _dims(layer: Layer, channels: int) -> Conv:
    rows = layer.m // layer.ofmap_w
    height = (rows - 1) * layer.stride_h + layer.filter_h
    width = (layer.ofmap_w - 1) * layer.stride_w + layer.filter_w
    return Conv(
        1, layer.channels * channels, height, width, layer.filters * channels, layer.filter_h, layer.filter_w,
        (layer.stride_h, layer.stride_w), groups=channels,
    )  # fmt: skip
