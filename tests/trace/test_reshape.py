"""Re-shaped steps equal steps that were captured at that size."""

from __future__ import annotations

import numpy as np
import pytest
from trace_steps import small_step

from npusim.errors import NpusimError
from npusim.synthesis import from_layers
from npusim.trace.reshape import reshape


def assert_same(one, other):
    for a, b in zip(one.ops, other.ops, strict=True):
        assert a == b
    assert dict(one.tensors) == dict(other.tensors)


@pytest.mark.parametrize("name", ["ResNet18", "Vgg", "MobileNet"])
def test_reshaped_captures_equal_captures_at_that_size(name):
    pytest.importorskip("torch")
    import trace_models as models

    from npusim import trace

    build = {"ResNet18": lambda: models.ResNet18(10, 8), "Vgg": models.Vgg, "MobileNet": models.MobileNet}[name]
    masks = {f"{n}.weight": np.ones(m.weight.shape) for n, m in build().named_modules() if hasattr(m, "groups")}
    small = trace.capture_static(build, (2, 3, 32, 32), grad_masks=masks)
    large = trace.capture_static(build, (5, 3, 224, 224))
    result = reshape(small, 224, 5)
    assert_same(result, large)
    assert dict(result.update_masks) == dict(small.update_masks) and len(result.update_masks) == len(masks)
    assert_same(reshape(result, 32, 2), small)
    assert_same(reshape(small), small)
    assert result.meta["batch"] == 5 and result.meta["reshaped"] == {"input_size": [224, 224], "batch": 5}


def test_pooling_with_ceil_and_channel_slices_and_gates():
    torch = pytest.importorskip("torch")
    from torch import nn

    from npusim import trace

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
            self.grid = nn.AdaptiveAvgPool2d(3)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(36, 10)

        def forward(self, x):
            x = self.pool(self.conv(x))
            x = torch.cat([x, x], 1)[:, :4]
            x = x * torch.sigmoid(x.mean([2, 3], keepdim=True))
            return self.fc(self.drop(torch.flatten(self.grid(x), 1)))

    # (14 + 0 - 3) / 2 rounds up to 6 + 1 = 7; (30 - 3) / 2 rounds up to 14 + 1 = 15.
    small, large = (trace.capture_static(Net, (n, 3, size, size)) for n, size in ((2, 14), (3, 30)))
    assert next(op for op in small.ops if op.name == "pool").dims.p == 7
    assert_same(reshape(small, 30, 3), large)


def test_layer_lists_reshape_too():
    def step(n, size):
        layers = [
            {"name": "x", "kind": "input", "shape": (n, 3, *size)},
            {"name": "a", "kind": "conv", "out": 8, "kernel": 3, "stride": 2, "padding": 1, "bias": True},
            {"name": "b", "kind": "batch_norm"},
            {"name": "r", "kind": "activation"},
            {"name": "g", "kind": "pool", "size": 1},
            {"name": "f", "kind": "flatten"},
            {"name": "fc", "kind": "linear", "out": 10, "bias": True},
        ]
        return from_layers(layers, "net", "momentum")

    assert_same(reshape(step(1, (16, 16)), (224, 160), 8), step(8, (224, 160)))


def test_attention_follows_the_batch_and_refuses_another_size():
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from npusim import trace

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.fc = nn.Linear(8, 10)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            y = torch.softmax(x @ x.transpose(1, 2), -1) @ x
            return self.fc(y.mean(1))

    with sdpa_kernel(SDPBackend.MATH):
        small, batched = (trace.capture_static(Tiny, (n, 3, 16, 16)) for n in (2, 6))
    products = [op.dims for op in reshape(small, batch=6).ops if op.kind == "matmul"]
    assert products == [op.dims for op in batched.ops if op.kind == "matmul"]
    with pytest.raises(NpusimError, match=r"cannot be re-shaped at matmul:forward \(matmul\): its operand"):
        reshape(small, 32)


def test_what_cannot_be_propagated_is_named():
    layers = [
        {"name": "x", "kind": "input", "shape": (1, 3, 8, 8)},
        {"name": "a", "kind": "conv", "out": 4, "kernel": 5},
        {"name": "f", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 10},
    ]
    step = from_layers(layers, "net")
    assert reshape(step, batch=4).tensors["fc:y"].shape == (4, 10)
    with pytest.raises(
        NpusimError, match=r"step 'net' cannot be re-shaped at fc:forward \(linear\): it reads 64 features"
    ):
        reshape(step, 16)
    with pytest.raises(NpusimError, match=r"a:forward.*window 5x5 does not fit 4x4"):
        reshape(step, 4)
    for size, batch in ((0, None), (True, None), (8, -1), (8, 2.0), ((8, "8"), None)):
        with pytest.raises(NpusimError, match="whole numbers"):
            reshape(step, size, batch)


def test_observed_bitmaps_do_not_survive():
    assert not reshape(small_step(), 16).observed
    assert reshape(small_step(), 16, 4).ops[0].dims.t == 4 * 16 * 16
