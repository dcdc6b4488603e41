"""Small steps for tests that need no torch."""

from __future__ import annotations

import numpy as np

from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.masks import Mask

DIMS = Conv(2, 3, 8, 8, 4, 3, 3, padding=(1, 1))


def small_step(meta=None) -> StepGraph:
    """One convolution, its gradient and its update, with both masks and an observed bitmap."""
    rng = np.random.default_rng(0)
    shape = (4, 3, 3, 3)
    tensors = [
        Tensor("x", (2, 3, 8, 8), "activation"),
        Tensor("c.weight", shape, "weight"),
        Tensor("y", (2, 4, 8, 8), "activation"),
        Tensor("y.grad", (2, 4, 8, 8), "gradient", grad_of="y"),
        Tensor("c.weight.grad", shape, "weight_gradient", grad_of="c.weight"),
    ]
    ops = (
        Op("c", "forward", "conv", DIMS, ("x", "c.weight"), ("y",), "c.weight"),
        Op("c", "grad_weight", "conv", DIMS, ("y.grad", "x"), ("c.weight.grad",), "c.weight"),
        Op("c", "update", "sgd", Vector(108), ("c.weight", "c.weight.grad"), ("c.weight",), "c.weight"),
    )
    return StepGraph(
        "small",
        ops,
        {t.name: t for t in tensors},
        task_masks={"c.weight": Mask.of(rng.random(shape) < 0.5)},
        update_masks={"c.weight": Mask.of(rng.random(shape) < 0.25)},
        observed={"c.weight.grad": Mask.of(rng.random(shape) < 0.9)},
        meta=meta or {"seed": 0, "accuracy": 0.5, "versions": {"torch": "2.13"}},
    )
