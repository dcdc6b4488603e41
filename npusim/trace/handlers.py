"""Which operations of PyTorch multiply matrices, and what records them."""

from __future__ import annotations

from collections.abc import Callable

from npusim.trace import attention
from npusim.trace.products import PRODUCTS, Call
from npusim.trace.recorder import Recorder

HANDLERS: dict[str, Callable[[Recorder, Call], None]] = {
    **PRODUCTS, attention.FORWARD: attention.attention, attention.BACKWARD: attention.attention_backward,
}  # fmt: skip
