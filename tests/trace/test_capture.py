"""What a captured step holds, against hand-computed sizes and PyTorch's own FLOP counter."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from npusim.errors import CaptureError
from npusim.graph import Conv
from npusim.masks import Mask

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from trace_models import MobileNet, ResNet18, Vgg, training_step  # noqa: E402

from npusim import trace  # noqa: E402
from npusim.trace import attention  # noqa: E402
from npusim.trace.products import Call  # noqa: E402
from npusim.trace.recorder import Recorder  # noqa: E402


def captured(model, shape, **options):
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", None)
    return trace.capture(model, training_step(model, shape, optimizer), **options)


def macs(graph, phase):
    return sum(op.macs for op in graph.phase(phase))


def one(graph, name, phase, kind=None):
    found = [op for op in graph.phase(phase) if op.name == name and kind in (None, op.kind)]
    assert len(found) == 1, found
    return found[0]


def test_resnet18_macs_equal_the_flop_counter_in_every_phase():
    from torch.utils.flop_counter import FlopCounterMode

    model = ResNet18(10, width=16)
    x, y = torch.randn(2, 3, 64, 64), torch.zeros(2, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(model(x), y)
        forward = counter.get_total_flops()
        loss.backward()
    graph = trace.capture(model, training_step(model, (2, 3, 64, 64)), name="resnet18")
    assert 2 * macs(graph, "forward") == forward
    assert 2 * (macs(graph, "grad_input") + macs(graph, "grad_weight")) == counter.get_total_flops() - forward
    # Every layer but the first propagates its error; grad_weight of all equals the forward pass.
    assert macs(graph, "grad_weight") == macs(graph, "forward")
    assert macs(graph, "forward") - macs(graph, "grad_input") == one(graph, "conv1", "forward").macs


def test_resnet18_grad_weight_sizes_are_the_hand_computed_ones():
    graph = trace.capture_static(ResNet18, (1, 3, 224, 224))
    # 224x224 image: stem 7x7, stride 2, padding 3 -> (224 + 6 - 7) // 2 + 1 = 112 output rows.
    # 1*112*112*64*3*7*7 = 118,013,952.
    stem = one(graph, "conv1", "grad_weight")
    assert stem.macs == 118_013_952
    # After 3x3 max pooling with stride 2: 56x56. layer1: 4 convolutions 64 -> 64, 3x3:
    # 56*56*64*64*9 = 115,605,504 each.
    assert one(graph, "layer1.0.conv1", "grad_weight").macs == 115_605_504
    # layer3.0.downsample: 1x1, 128 -> 256, 28x28 -> 14x14: 14*14*256*128 = 6,422,528.
    assert one(graph, "layer3.0.downsample.0", "grad_weight").macs == 6_422_528
    # Whole: stem + 4*layer1 + for each of layers 2..4: half (stride 2) + 3 full + projection, where
    # a full convolution costs 115,605,504 in every stage (pixels / 4, channels * 2 twice)
    # = 118,013,952 + 4*115,605,504 + 3*(57,802,752 + 3*115,605,504 + 6,422,528) + 512*1000
    assert (
        macs(graph, "grad_weight") == 118_013_952 + 462_422_016 + 3 * (57_802_752 + 346_816_512 + 6_422_528) + 512_000
    )
    assert macs(graph, "grad_weight") == 1_814_073_344
    op = one(graph, "layer4.1.conv2", "grad_weight")
    dy, x, dw = (graph.tensors[name] for name in (*op.inputs, *op.outputs))
    assert (dy.shape, x.shape, dw.shape) == ((1, 512, 7, 7), (1, 512, 7, 7), (512, 512, 3, 3))
    # fp32: dY and X 512*7*7*4 = 100,352 bytes each, dW 512*512*9*4 = 9,437,184 bytes.
    assert [4 * t.elements for t in (dy, x, dw)] == [100_352, 100_352, 9_437_184]
    assert dw.grad_of == "layer4.1.conv2.weight" and dw.kind == "weight_gradient"
    # 11,689,512 parameters: the published count of ResNet-18.
    assert sum(op.dims.elements for op in graph.phase("update")) == 11_689_512


def test_real_and_static_capture_agree():
    for build, shape in ((lambda: ResNet18(10, 8), (2, 3, 32, 32)), (Vgg, (2, 3, 16, 16)), (MobileNet, (2, 3, 32, 32))):
        static = trace.capture_static(build, shape)
        real = captured(build(), shape)
        assert real.ops == static.ops
        assert dict(real.tensors) == dict(static.tensors)


def test_order_and_tensors_of_a_small_step():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 10)
    )
    graph = captured(model, (2, 3, 8, 8))
    assert [(op.label, op.kind, op.inputs, op.outputs) for op in graph.ops] == [
        ("0:forward", "conv", ("input", "0.weight"), ("0:y",)),
        ("1:forward", "batch_norm", ("0:y", "1.weight"), ("1:y",)),
        ("2:forward", "activation", ("1:y",), ("2:y",)),
        ("4:forward", "linear", ("2:y", "4.weight"), ("4:y",)),
        ("softmax_loss:forward", "softmax_loss", ("4:y",), ("softmax_loss:y",)),
        ("softmax_loss:grad_input", "softmax_loss", ("softmax_loss:y",), ("4:y.grad",)),
        ("4:grad_input", "linear", ("4:y.grad", "4.weight"), ("2:y.grad",)),
        ("4:grad_weight", "linear", ("4:y.grad", "2:y"), ("4.weight.grad",)),
        ("4:grad_weight", "bias_grad", ("4:y.grad",), ("4.bias.grad",)),
        ("2:grad_input", "activation", ("2:y.grad", "2:y"), ("1:y.grad",)),
        ("1:grad_input", "batch_norm", ("1:y.grad", "0:y"), ("0:y.grad", "1.weight.grad", "1.bias.grad")),
        ("0:grad_weight", "conv", ("0:y.grad", "input"), ("0.weight.grad",)),
        ("0:grad_weight", "bias_grad", ("0:y.grad",), ("0.bias.grad",)),
        ("0:update", "sgd", ("0.weight", "0.weight.grad"), ("0.weight",)),
        ("0:update", "sgd", ("0.bias", "0.bias.grad"), ("0.bias",)),
        ("1:update", "sgd", ("1.weight", "1.weight.grad"), ("1.weight",)),
        ("1:update", "sgd", ("1.bias", "1.bias.grad"), ("1.bias",)),
        ("4:update", "sgd", ("4.weight", "4.weight.grad"), ("4.weight",)),
        ("4:update", "sgd", ("4.bias", "4.bias.grad"), ("4.bias",)),
    ]
    assert graph.tensors["2:y.grad"].shape == graph.tensors["2:y"].shape == (2, 4, 8, 8)
    assert graph.tensors["4.weight"].shape == graph.tensors["4.weight.grad"].shape == (10, 256)
    assert graph.tensors["4.bias.grad"].shape == (10,)


@pytest.mark.parametrize("arguments, dims", [
    (dict(groups=4), Conv(2, 8, 9, 9, 8, 3, 3, groups=4)),
    (dict(groups=8, padding=1, stride=2), Conv(2, 8, 9, 9, 8, 3, 3, (2, 2), (1, 1), groups=8)),
    (dict(dilation=2, padding=(2, 0)), Conv(2, 8, 9, 9, 8, 3, 3, (1, 1), (2, 0), (2, 2))),
    (dict(stride=(1, 2), padding="same") | dict(stride=1), Conv(2, 8, 9, 9, 8, 3, 3, (1, 1), (1, 1))),
])  # fmt: skip
def test_grouped_depthwise_dilated_and_strided_convolutions(arguments, dims):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, **arguments), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = captured(model, (2, 3, 9, 9))
    for phase in ("forward", "grad_input", "grad_weight"):
        assert one(graph, "1", phase, "conv").dims == dims
    y = graph.tensors[one(graph, "1", "forward").outputs[0]]
    assert y.shape == (2, 8, dims.p, dims.q)
    # F = N*P*Q*K*(C/G)*R*S
    assert dims.macs == 2 * dims.p * dims.q * 8 * (8 // dims.groups) * 9


def test_conv1d_is_a_convolution_of_one_row():
    model = nn.Sequential(nn.Conv1d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    graph = captured(model, (2, 4, 8), grad_masks={"0.weight": torch.ones(6, 4, 3)})
    assert one(graph, "0", "grad_weight", "conv").dims == Conv(2, 4, 1, 8, 6, 1, 3, (1, 2), (0, 1))
    assert graph.update_masks["0.weight"].shape == (6, 4, 1, 3)


def test_frozen_layers_have_no_grad_weight_and_nothing_before_them_a_gradient():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    for module, frozen in ((model[0], True), (model[4], True)):
        module.requires_grad_(not frozen)
    graph = captured(model, (2, 3, 8, 8))
    assert {op.name for op in graph.phase("grad_weight")} == {"2", "6"}
    # The error must pass layers 6, 4 and 3 to reach layer 2, and stops there.
    assert [op.name for op in graph.phase("grad_input")] == ["softmax_loss", "6", "4", "3"]
    assert {op.param for op in graph.phase("update")} == {"2.weight", "2.bias", "6.weight", "6.bias"}


def test_a_module_used_twice_gives_two_gradients_and_their_sum():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(10, 10, bias=False)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.a(self.relu(self.a(x)))

    graph = captured(Twice(), (4, 10))
    assert [(op.name, op.kind) for op in graph.phase("forward")][:3] == [
        ("a", "linear"),
        ("relu", "activation"),
        ("a@2", "linear"),
    ]
    assert [(op.name, op.kind) for op in graph.phase("grad_weight")] == [
        ("a@2", "linear"),
        ("a", "linear"),
        ("a.weight.accumulate", "add"),
    ]
    assert {op.param for op in graph.ops if op.macs} == {"a.weight"}
    total = graph.phase("grad_weight")[-1]
    assert total.inputs == ("a.weight.grad", "a.weight.grad@2") and total.outputs == ("a.weight.grad@3",)
    assert one(graph, "a", "update").inputs == ("a.weight", "a.weight.grad@3")


@pytest.mark.parametrize("make, kind, states", [
    (lambda p: torch.optim.SGD(p, 0.1, foreach=False), "sgd", ()),
    (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=False), "momentum", ("momentum_buffer",)),
    (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=True), "momentum", ("momentum_buffer",)),
    (lambda p: torch.optim.Adam(p, foreach=False), "adam", ("exp_avg", "exp_avg_sq")),
    (lambda p: torch.optim.Adam(p, foreach=True), "adam", ("exp_avg", "exp_avg_sq")),
    (lambda p: torch.optim.AdamW(p, fused=True), "adam", ("exp_avg", "exp_avg_sq")),
])  # fmt: skip
def test_optimizers(make, kind, states):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 10))
    graph = captured(model, (3, 6), optimizer=make(model.parameters()))
    updates = graph.phase("update")
    assert [(op.kind, op.param) for op in updates] == [
        (kind, f"{i}.{part}") for i in "02" for part in ("weight", "bias")
    ]
    assert updates[0].inputs == ("0.weight", "0.weight.grad", *(f"0.weight.{s}" for s in states))
    assert updates[0].dims.elements == 24 and not graph.phase("aux")
    assert all(graph.tensors[f"0.weight.{s}"].shape == (4, 6) for s in states)


def test_unknown_optimizer_is_refused():
    model = nn.Linear(4, 10)
    with pytest.raises(CaptureError, match="LBFGS"):
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
        x, y = torch.randn(2, 4), torch.zeros(2, dtype=torch.long)

        def loss():
            optimizer.zero_grad()
            value = F.cross_entropy(model(x), y)
            value.backward()
            return value

        trace.capture(model, lambda: optimizer.step(loss))


class Attention(nn.Module):
    def __init__(self, d=8, heads=2):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, 10)
        self.heads = heads

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(F.gelu(y.transpose(1, 2).reshape(n, t, d)).mean(1))


def test_attention_with_the_math_backend():
    model = Attention()
    with sdpa_kernel(SDPBackend.MATH):
        graph = captured(model, (3, 5, 8))
    products = [op for op in graph.ops if op.kind == "matmul"]
    # 3 images x 2 heads; QK^T and PV forward, two gradients of each. 5 tokens, 4 features per head.
    assert [op.phase for op in products] == ["forward"] * 2 + ["grad_input"] * 4
    assert all(op.macs == 3 * 2 * 5 * 5 * 4 for op in products)
    assert one(graph, "qkv", "forward").dims == Conv(15, 8, 1, 1, 24)
    assert {op.kind for op in graph.phase("grad_input")} >= {"softmax", "layer_norm", "activation", "matmul", "linear"}
    assert one(graph, "norm", "grad_input").outputs[-2:] == ("norm.weight.grad", "norm.bias.grad")


def products_of(graph):
    return Counter((op.phase, op.kind, op.dims.batch, *sorted((op.dims.m, op.dims.n, op.dims.k)))
                   for op in graph.ops if op.kind == "matmul")  # fmt: skip


def test_fused_attention_is_what_the_math_backend_computes():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = captured(Attention(), (3, 5, 8))
    with sdpa_kernel(SDPBackend.MATH):
        written_out = captured(Attention(), (3, 5, 8))
    assert products_of(fused) == products_of(written_out)
    softmax = [(op.phase, op.dims.elements) for op in fused.ops if op.kind == "softmax"]
    assert softmax == [("forward", 3 * 2 * 5 * 5), ("grad_input", 3 * 2 * 5 * 5)]
    by_name = {op.name: op for op in fused.phase("forward")}
    assert by_name["attention"].inputs == (by_name["attention.softmax"].outputs[0], "qkv:y")
    assert fused.tensors["attention.scores:y"].shape == (6, 5, 5)
    backward = [op for op in fused.phase("grad_input") if op.name.startswith("attention")]
    assert [op.name for op in backward] == ["attention"] * 2 + ["attention.softmax"] + ["attention.scores"] * 2
    # dQ, dK and dV are what the backward of the projection reads.
    made = {name for op in backward for name in op.outputs} - {f"attention.{p}:y.grad" for p in ("scores", "softmax")}
    read = {name for op in fused.phase("grad_input") if op not in backward for name in op.inputs}
    assert len(made) == 3 and made <= read


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_attention_that_is_not_expanded_and_lstm_fail_and_say_what_to_do():
    call = Call("_scaled_dot_product_flash_attention_for_cpu", (*(torch.zeros(1, 2, 3, 4),) * 3, 0.1, False), {},
                torch.zeros(1, 2, 3, 4), False, None, False)  # fmt: skip
    for args in (call.args, (torch.zeros(1, 4, 3, 4), *call.args[1:3])):
        rec = Recorder(nn.Identity(), "step")
        attention.attention(rec, replace(call, args=args))
        assert "with dropout, or fewer heads of keys than queries" in rec.unseen[0] and not rec.ops

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 10, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    with pytest.raises(CaptureError, match=r"rnn|lstm"):
        captured(Recurrent(), (2, 3, 4))
    with torch.backends.mkldnn.flags(enabled=False):
        graph = captured(Recurrent(), (2, 3, 4))
    assert sum(op.macs for op in graph.phase("forward")) == 2 * 3 * 40 * (4 + 10)


def test_einsum_becomes_a_linear_layer_or_a_product():
    class Einsum(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(10, 6))

        def forward(self, x):
            return torch.einsum("btd,kd->btk", x, self.weight).mean(1)

    graph = captured(nn.Sequential(Einsum()), (2, 3, 6))
    op = one(graph, "0", "grad_weight")
    assert op.macs == 2 * 3 * 6 * 10 and op.param == "0.weight"


def test_custom_functions_with_hidden_products_are_named():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx, dy):
            x, w = ctx.saved_tensors
            return dy @ w.t(), x.t() @ dy

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 10))

        def forward(self, x):
            return Hidden.apply(x, self.weight)

    with pytest.raises(CaptureError, match="custom autograd function HiddenBackward"):
        captured(Model(), (2, 6))


class Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        return (scores > 5e-3).float()

    @staticmethod
    def backward(ctx, dy):
        return dy


class Piggyback(nn.Conv2d):
    """Frozen weights times a binarised, trained mask weight."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.weight.requires_grad_(False)
        self.mask_weight = nn.Parameter(1e-2 * torch.randn_like(self.weight))

    def forward(self, x):
        return self._conv_forward(x, self.weight * Binarise.apply(self.mask_weight), None)


def test_a_masked_weight_is_recorded_under_the_modules_weight_with_both_masks():
    torch.manual_seed(1)
    model = nn.Sequential(
        Piggyback(3, 4, 3, bias=False), nn.ReLU(), Piggyback(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(80, 10)
    )
    task = {f"{i}.weight": model[i].mask_weight > 5e-3 for i in (0, 2)}
    update = {f"{i}.weight": np.random.default_rng(i).random(model[i].weight.shape) < 0.25 for i in (0, 2)}
    optimizer = torch.optim.Adam([model[0].mask_weight, model[2].mask_weight])
    graph = captured(model, (2, 3, 8, 8), optimizer=optimizer, grad_masks=update, task_masks=task, method="piggyback")
    convolutions = [op for op in graph.ops if op.kind == "conv"]
    assert [(op.name, op.phase, op.param) for op in convolutions] == [
        ("0", "forward", "0.weight"), ("2", "forward", "2.weight"),
        ("2", "grad_input", "2.weight"), ("2", "grad_weight", "2.weight"), ("0", "grad_weight", "0.weight"),
    ]  # fmt: skip
    assert {op.kind for op in graph.phase("aux")} == {"mul", "elementwise"}
    assert all(op.param in ("0.weight", "2.weight") for op in graph.phase("aux"))
    update_op = one(graph, "2", "update")
    assert update_op.param == "2.weight" and update_op.inputs[0] == "2.mask_weight"
    assert update_op.inputs[2:] == ("2.mask_weight.exp_avg", "2.mask_weight.exp_avg_sq")
    for i in (0, 2):
        assert graph.task_masks[f"{i}.weight"] == Mask.of(task[f"{i}.weight"].numpy())
        assert graph.update_masks[f"{i}.weight"] == Mask.of(update[f"{i}.weight"])


def test_parametrised_weights_and_mask_weights_outside_the_model():
    class Half(nn.Module):
        def forward(self, w):
            return 0.5 * w

    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(144, 10))
    torch.nn.utils.parametrize.register_parametrization(model[0], "weight", Half())
    graph = captured(model, (2, 3, 8, 8))
    assert one(graph, "0", "grad_weight", "conv").param == "0.weight"

    # Selective weight update as an outer loop: the model holds W * mask, scores live outside.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(144, 10))
    frozen = model[0].weight.detach().clone()
    model[0].register_buffer("frozen", frozen)
    scores = nn.Parameter(torch.full_like(frozen, 1e-2))
    optimizer = torch.optim.Adam([scores])
    x, y = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)

    def step():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        scores.grad = model[0].weight.grad * frozen
        optimizer.step()

    graph = trace.capture(model, step, grad_masks={"0.weight": frozen > 0})
    (update,) = graph.phase("update")
    assert (update.name, update.param, update.dims.elements) == ("0", "0.weight", 108)
    (product,) = graph.phase("aux")
    assert (product.name, product.kind, product.param) == ("0.mul", "mul", "0.weight")
    assert update.inputs[1] == product.outputs[0]


def test_declared_masks_must_fit():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 10))
    with pytest.raises(
        CaptureError, match=r"'0\.wieght' is no weight.*did you mean '0\.weight'.*; '1\.weight' has shape \(3, 3\)"
    ):
        captured(model, (2, 6), grad_masks={"0.wieght": np.ones((4, 6)), "1.weight": np.ones((3, 3))})


def test_observed_zeros_stay_apart_from_masks():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 10))
    graph = captured(model, (2, 1, 1, 1), observe=True)
    # A 1x1 map meets only the centre tap: 8 of 9 gradients of every kernel are zero without any selection.
    assert graph.observed["0.weight.grad"].count <= 2 and graph.observed["0.weight.grad"].shape == (2, 1, 3, 3)
    assert set(graph.observed) == {"input", "0.weight.grad", "1:y", "3.weight.grad"}
    assert not graph.update_masks and not graph.task_masks


def test_steps_that_are_none():
    model = nn.Linear(4, 10)
    with pytest.raises(CaptureError, match="no convolution"):
        trace.capture(model, lambda: None)
    with pytest.raises(CaptureError, match="no backward"):
        trace.capture(model, lambda: model(torch.randn(2, 4)))


def test_other_torch_versions_are_refused(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(CaptureError, match=r"torch 2\.13, this is 2\.9\.1"):
        trace.capture(nn.Linear(4, 10), lambda: None)


def test_gradient_clipping_and_tensor_hooks_are_aux_work():
    model = nn.Sequential(nn.Linear(6, 10, bias=False))
    mask = torch.ones(10, 6)
    model[0].weight.register_hook(lambda gradient: gradient * mask)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(2, 6), torch.zeros(2, dtype=torch.long)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    graph = trace.capture(model, step)
    assert ("mul", "0.weight") in [(op.kind, op.param) for op in graph.phase("aux")]
    assert len(graph.phase("grad_weight")) == 1 and len(graph.phase("update")) == 1
    written = [name for op in graph.phase("aux") for name in op.outputs]
    assert graph.phase("update")[0].inputs[1] in written


def test_common_layers_are_recorded_by_kind():
    class Zoo(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.functions = nn.Sequential(nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.LeakyReLU(), nn.ReLU6())
            self.group = nn.GroupNorm(2, 8)
            self.average = nn.AvgPool2d(2)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(8, 10)

        def forward(self, x):
            x = self.average(self.group(self.functions(self.conv(x))))
            gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
            return self.fc(self.drop((x * gate).amax((2, 3))))

    graph = captured(Zoo(), (2, 3, 8, 8))
    kinds = {op.name: op.kind for op in graph.phase("forward")}
    assert [kinds[f"functions.{i}"] for i in range(5)] == ["activation"] * 5
    assert (kinds["group"], kinds["average"], kinds["pool"], kinds["mul"]) == ("layer_norm", "pool", "pool", "mul")
    back = [op.kind for op in graph.phase("grad_input") if op.name.startswith("functions")]
    assert back == ["activation"] * 5
    average = one(graph, "average", "grad_input")
    assert (average.dims.p, average.dims.r, average.dims.stride) == (4, 2, (2, 2))
