"""Static capture: the shapes of a training step, without data and almost without time.

The same recorder runs on PyTorch's fake tensors, which know shapes, strides and aliasing only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional

from npusim.errors import CaptureError
from npusim.graph import StepGraph
from npusim.trace.pytorch import OPTIMIZERS, check_torch, finish, recording, update
from npusim.trace.recorder import Recorder

STATES: dict[str, list[str]] = {"sgd": [], "momentum": ["momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq"]}


def capture_static(
    build: Callable[[], torch.nn.Module],
    input_shape: tuple[int, ...],
    *,
    loss: Callable[[Any], torch.Tensor] | None = None,
    optimizer: str = "sgd",
    grad_masks: Mapping[str, Any] | None = None,
    task_masks: Mapping[str, Any] | None = None,
    name: str = "",
    method: str = "dense",
) -> StepGraph:
    """One training step of the model that `build()` makes, on an input of `input_shape` (batch first).

    `loss` maps the model's output to a scalar; it defaults to cross entropy over the last dimension with
    one label per remaining element. `optimizer` is 'sgd', 'momentum' or 'adam'. Masks as in `capture`.
    """
    check_torch()
    if optimizer not in OPTIMIZERS:
        raise CaptureError(f"optimizer {optimizer!r} is not known; allowed: {', '.join(OPTIMIZERS)}")
    with FakeTensorMode():
        model = build()
        rec = Recorder(model, name or type(model).__name__, hold=StorageWeakRef)
        inputs = torch.empty(input_shape)
        with recording(rec, model) as mode:
            (loss or _cross_entropy)(model(inputs)).backward()
            mode.paused += 1
            for parameter in model.parameters():
                if parameter.grad is not None:
                    update(rec, parameter, STATES[optimizer])
        return finish(rec, model, grad_masks, task_masks, {"method": method, "static": True})


def _cross_entropy(output: torch.Tensor) -> torch.Tensor:
    scores = output.reshape(-1, output.shape[-1])
    return functional.cross_entropy(scores, torch.zeros(scores.shape[0], dtype=torch.long))
