"""Small step graphs that several tests share."""

import numpy as np

from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.masks import Mask


def layer_step(dims, mask=None, phases=("forward", "grad_input", "grad_weight"), kind="conv"):
    """A step of one layer; `mask` is a boolean array [K, C/G, R, S] that becomes its update mask."""
    ops = tuple(Op("layer", phase, kind, dims, param="layer.weight") for phase in phases)
    masks = {} if mask is None else {"layer.weight": Mask.of(mask)}
    return StepGraph("one-layer", ops, {}, update_masks=masks)


def random_conv(rng, groups=True):
    """A convolution with random window, stride, padding, dilation and groups that fits its input."""
    r, s = (int(v) for v in rng.integers(1, 4, 2))
    g = int(rng.choice([1, 1, 2, 4])) if groups else 1
    n, c, h, w, k = (int(rng.integers(*low_high)) for low_high in ((1, 4), (1, 9), (7, 15), (7, 15), (1, 24)))
    return Conv(
        n, g * c, h, w, g * k, r, s, stride=(int(rng.integers(1, 4)),) * 2,
        padding=(int(rng.integers(0, 2)),) * 2, dilation=(int(rng.integers(1, 3)),) * 2, groups=g,
    )  # fmt: skip


def random_mask(rng, dims, density=None):
    """Unstructured bits for the weights of `dims`, density drawn from 0..1 unless given."""
    density = rng.random() if density is None else density
    return rng.random((dims.k, dims.c // dims.groups, dims.r, dims.s)) < density


def update_step(elements, kind="sgd", mask=None):
    """One optimizer update of a weight of `elements` elements."""
    tensors = [Tensor("w", (elements,), "weight"), Tensor("dw", (elements,), "weight_gradient", grad_of="w")]
    state = {"sgd": 0, "momentum": 1, "adam": 2}[kind]
    tensors += [Tensor(f"s{i}", (elements,), "state") for i in range(state)]
    names = [t.name for t in tensors]
    op = Op("layer", "update", kind, Vector(elements), tuple(names), ("w", *names[2:]), "layer.weight")
    masks = {} if mask is None else {"layer.weight": Mask.of(np.asarray(mask))}
    return StepGraph("update", (op,), {t.name: t for t in tensors}, update_masks=masks)
