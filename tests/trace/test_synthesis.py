"""Steps from forward-only layer lists."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import trace
from npusim.errors import NpusimError
from npusim.graph import Conv, Gemm
from npusim.layers import KINDS, Layer
from npusim.synthesis import from_file, from_layers
from npusim.trace.reshape import reshape

INPUT = {"name": "x", "kind": "input", "shape": (2, 3, 8, 8)}


def resnet18_layers(width, classes, shape):
    """ResNet-18 with the module names of the test model."""
    layers = [{"name": "image", "kind": "input", "shape": shape}]

    def add(name, kind, *inputs, **options):
        layers.append({"name": name, "kind": kind, "inputs": list(inputs), **options})
        return name

    add("conv1", "conv", out=width, kernel=7, stride=2, padding=3)
    add("bn1", "batch_norm")
    add("relu", "activation")
    x, c = add("maxpool", "pool", kernel=3, stride=2, padding=1), width
    for stage in range(1, 5):
        k = width << (stage - 1)
        for block in range(2):
            n, stride, shortcut = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1, x
            if stride != 1 or c != k:
                add(f"{n}.downsample.0", "conv", x, out=k, stride=stride)
                shortcut = add(f"{n}.downsample.1", "batch_norm")
            add(f"{n}.conv1", "conv", x, out=k, kernel=3, stride=stride, padding=1)
            add(f"{n}.bn1", "batch_norm")
            add(f"{n}.relu", "activation")
            add(f"{n}.conv2", "conv", out=k, kernel=3, padding=1)
            y = add(f"{n}.bn2", "batch_norm")
            add(f"{n}.add", "add", y, shortcut)
            x, c = add(f"{n}.relu@2", "activation"), k
    add("avgpool", "pool", size=1)
    add("flatten", "flatten")
    add("fc", "linear", out=classes, bias=True)
    return layers


def test_synthesised_resnet18_equals_the_captured_one():
    pytest.importorskip("torch")
    import trace_models as models

    captured = trace.capture_static(lambda: models.ResNet18(10, 8), (2, 3, 64, 64), optimizer="adam")
    made = from_layers(resnet18_layers(8, 10, (2, 3, 64, 64)), "ResNet18", "adam")
    split = len(captured.ops) - len(captured.phase("update"))
    assert made.ops[:split] == captured.ops[:split]
    # PyTorch updates parameters in the order in which modules were made, not called.
    assert set(made.phase("update")) == set(captured.phase("update"))
    assert dict(made.tensors) == dict(captured.tensors)


def test_phases_order_and_accumulation():
    layers = [
        INPUT,
        Layer("a", "conv", out=4, kernel=3, padding=1),
        Layer("r", "activation"),
        Layer("b", "conv", out=4, kernel=3, padding=1, groups=4),
        Layer("s", "add", ("b", "r")),
        Layer("g", "pool", size=1),
        Layer("f", "flatten"),
        Layer("fc", "linear", out=10, bias=True),
    ]
    step = from_layers(layers, "net", "sgd")
    assert [op.label for op in step.ops] == [
        "a:forward", "r:forward", "b:forward", "s:forward", "g:forward", "fc:forward", "softmax_loss:forward",
        "softmax_loss:grad_input", "fc:grad_input", "fc:grad_weight", "fc:grad_weight", "g:grad_input",
        "b:grad_input", "b:grad_weight", "r.accumulate:grad_input", "r:grad_input", "a:grad_weight",
        "a:update", "b:update", "fc:update", "fc:update",
    ]  # fmt: skip
    sums = next(op for op in step.ops if op.name == "r.accumulate")
    assert sums.inputs == ("s:y.grad", "r:y.grad") and sums.outputs == ("r:y.grad@2",)
    depthwise = next(op for op in step.ops if op.label == "b:grad_weight")
    # N*K*P*Q*(C/G)*R*S = 2*4*8*8*1*3*3 = 4,608
    assert depthwise.dims == Conv(2, 4, 8, 8, 4, 3, 3, (1, 1), (1, 1), (1, 1), 4) and depthwise.macs == 4_608


def test_attention_gradients():
    layers = [
        {"name": "x", "kind": "input", "shape": (2, 5, 8)},
        {"name": "q", "kind": "linear", "out": 6},
        {"name": "k", "kind": "linear", "inputs": ["x"], "out": 6},
        {"name": "scores", "kind": "matmul", "inputs": ["q", "k"], "transposed": True},
        {"name": "p", "kind": "softmax"},
        {"name": "out", "kind": "matmul", "inputs": ["p", "k"]},
        {"name": "n", "kind": "layer_norm"},
        {"name": "fc", "kind": "linear", "out": 3},
    ]
    step = from_layers(layers, "attention", "momentum")
    products = [(op.phase, op.dims) for op in step.ops if op.kind == "matmul"]
    assert products == [
        ("forward", Gemm(2, 5, 5, 6)), ("forward", Gemm(2, 5, 6, 5)),
        ("grad_input", Gemm(2, 5, 5, 6)), ("grad_input", Gemm(2, 5, 6, 5)),
        ("grad_input", Gemm(2, 5, 6, 5)), ("grad_input", Gemm(2, 6, 5, 5)),
    ]  # fmt: skip
    assert len({op.macs for op in step.ops if op.kind == "matmul"}) == 1
    assert [op.name for op in step.phase("grad_weight")] == ["fc", "k", "q"]
    assert not any(op.name in ("q", "k") for op in step.phase("grad_input"))


def test_every_mistake_is_reported():
    layers = [
        {"name": "a", "kind": "conv", "out": 0, "kernal": 3},
        {"name": "a", "kind": "conv", "out": 4, "inputs": ["nowhere"], "stride": -1},
        {"name": "b", "kind": "magic"},
        {"name": "s", "kind": "add", "inputs": ["a"]},
    ]
    with pytest.raises(NpusimError) as caught:
        from_layers(layers, "net")
    text = str(caught.value)
    for words in ("unknown key 'kernal' (did you mean 'kernel'?)", "out = 0", "'nowhere'", "stride = -1", "used twice",
                  "needs a name and a kind", "add reads 2", "must be an 'input'"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("layer, words", [
    ({"name": "c", "kind": "conv", "out": 4, "kernel": 9}, "window 9x9 does not fit 8x8"),
    ({"name": "c", "kind": "conv", "out": 4, "groups": 2}, "does not divide"),
    ({"name": "v", "kind": "view", "shape": [7]}, "cannot be viewed"),
    ({"name": "p", "kind": "pool", "kernel": 9}, "does not fit"),
    ({"name": "p", "kind": "part", "shape": [999]}, "has no part 2x999"),
    ({"name": "p", "kind": "parameter", "shape": [2, 3]}, "first size must be 1"),
    ({"name": "c", "kind": "concat", "inputs": ["x"]}, "concat reads 2 or more"),
    ({"name": "c", "kind": "concat", "inputs": ["x", "x"], "axis": 4}, "differ in more than axis 4"),
    ({"name": "e", "kind": "embedding", "out": 4}, "rows = 0"),
    ({"name": "f", "kind": "linear", "out": 4, "tied": "x"}, "which no earlier conv or linear or embedding layer is"),
])  # fmt: skip
def test_layers_that_do_not_fit(layer, words):
    with pytest.raises(NpusimError, match=words):
        from_layers([INPUT, layer], "net")
    with pytest.raises(NpusimError, match="allowed: sgd, momentum, adam"):
        from_layers([INPUT], "net", "lion")


SCALARS = st.one_of(st.integers(-2, 9), st.booleans(), st.sampled_from(["x", "a", "conv", ""]), st.floats(), st.none())
VALUES = SCALARS | st.lists(st.integers(-1, 9) | st.sampled_from(["x", "a"]), max_size=4)
KEYS = st.sampled_from([field.name for field in fields(Layer)])


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(KEYS, VALUES, max_size=4)), max_size=4))
def test_any_layer_list_gives_a_step_or_one_error(changes):
    layers = [{"name": f"l{i}", "kind": kind, "out": 4, **more} for i, (kind, more) in enumerate(changes)]
    try:
        from_layers([INPUT, *layers], "net").verify()
    except NpusimError as error:
        assert "net" in str(error)


def test_layer_lists_in_toml(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        'name = "net"\noptimizer = "momentum"\nmeta = {source = "here"}\n'
        'layers = [\n {name = "x", kind = "input", shape = [1, 3, 8, 8]},\n {name = "a", kind = "conv", out = 4},\n]\n'
    )
    step = from_file(path)
    assert step.meta["source"] == "here" and step.phase("update")[0].kind == "momentum"
    wrong = {
        "name = 1": "needs 'name'",
        'name = "a"\nlayers = [1]': "must be a table",
        "x = [": "not valid TOML",
        "more = 1": "unknown key 'more'",
    }
    for text, words in wrong.items():
        path.write_text(text)
        with pytest.raises(NpusimError, match=words):
            from_file(path)


VIT = {"depth": 2, "features": 8, "heads": 2, "patch": 4, "patches": 4, "classes": 10}


def vit_layers(depth, features, heads, patch, patches, classes):
    """The test model VisionTransformer on 8x8 images, as in workloads/vit-tiny."""
    layers = [
        {"name": "image", "kind": "input", "shape": [3, 3, 8, 8]},
        {"name": "patch_embed", "kind": "conv", "out": features, "kernel": patch, "stride": patch, "bias": True},
        {"name": "tokens", "kind": "view", "shape": [patches, features]},
        {"name": "cls_token", "kind": "parameter", "shape": [1, 1, features]},
        {"name": "cat", "kind": "concat", "inputs": ["cls_token", "tokens"]},
        {"name": "pos_embed", "kind": "parameter", "shape": [1, patches + 1, features]},
        {"name": "x", "kind": "add", "inputs": ["cat", "pos_embed"]},
    ]

    def add(name, kind, *inputs, **options):
        layers.append({"name": name, "kind": kind, "inputs": list(inputs), **options})
        return name

    x, t = "x", patches + 1
    for i in range(depth):
        b = f"blocks.{i}"
        add(f"{b}.norm1", "layer_norm", x)
        qkv = add(f"{b}.qkv", "linear", out=3 * features, bias=True)
        q, k, v = (add(f"{b}.{part}", "part", qkv, shape=[heads, t, features // heads]) for part in "qkv")
        add(f"{b}.scores", "matmul", q, k, transposed=True)
        p = add(f"{b}.softmax", "softmax")
        add(f"{b}.values", "matmul", p, v)
        add(f"{b}.view", "view", shape=[t, features])
        add(f"{b}.proj", "linear", out=features, bias=True)
        x = add(f"{b}.add1", "add", x, f"{b}.proj")
        add(f"{b}.norm2", "layer_norm")
        add(f"{b}.fc1", "linear", out=4 * features, bias=True)
        add(f"{b}.gelu", "activation", of_input=True)
        add(f"{b}.fc2", "linear", out=features, bias=True)
        x = add(f"{b}.add2", "add", x, f"{b}.fc2")
    add("norm", "layer_norm")
    add("class", "part", shape=[features])
    add("head", "linear", out=classes, bias=True)
    return layers


def test_synthesised_transformer_has_the_operations_of_the_captured_one():
    pytest.importorskip("torch")
    import trace_models as models

    captured = trace.capture_static(lambda: models.VisionTransformer(**VIT), (3, 3, 8, 8))
    made = from_layers(vit_layers(**VIT), "vit")

    def work(step, *phases):
        kinds = ("conv", "linear", "matmul", "layer_norm", "softmax", "activation", "softmax_loss", "sgd")
        return sorted(str((op.phase, op.kind, op.dims)) for op in step.ops if op.kind in kinds and op.phase in phases)

    for phase in ("forward", "grad_input", "grad_weight", "update"):
        assert work(made, phase) == work(captured, phase)
    saved = [{name for op in s.phase("grad_weight") for name in op.inputs if ".fc" in name} for s in (made, captured)]
    assert saved[0] == saved[1]


def test_parts_gather_one_gradient_and_parameters_are_summed_over_the_batch():
    step = from_layers(vit_layers(**VIT), "vit")
    qkv = [op for op in step.ops if "blocks.0.qkv:y.grad" in op.outputs]
    assert [(op.kind, op.inputs) for op in qkv] == [
        ("elementwise", ("blocks.0.q:y.grad", "blocks.0.k:y.grad", "blocks.0.v:y.grad"))
    ]
    assert step.tensors["blocks.0.qkv:y.grad"].shape == (3, 5, 24)
    # The class token alone gets the gradient of the classifier: 3 samples of 5 tokens of 8 features are written.
    (token,) = [op for op in step.ops if "norm:y.grad" in op.outputs]
    assert token.inputs == ("class:y.grad",) and token.dims.elements == 3 * 5 * 8
    sums = {op.param: op.dims.elements for op in step.phase("grad_weight") if op.kind == "bias_grad" and "_" in op.name}
    assert sums["cls_token.weight"] == 3 * 8 and sums["pos_embed.weight"] == 3 * 5 * 8
    (split,) = [op for op in step.ops if op.label == "cat:grad_input"]
    assert [step.tensors[name].shape for name in split.outputs] == [(3, 1, 8), (3, 8, 2, 2)]


def test_a_tied_weight_gets_one_gradient_and_one_update():
    layers = [
        {"name": "ids", "kind": "input", "shape": [2, 5]},
        {"name": "wte", "kind": "embedding", "rows": 7, "out": 4},
        {"name": "ln", "kind": "layer_norm", "shift": False},
        {"name": "head", "kind": "linear", "out": 7, "tied": "wte"},
    ]
    step = from_layers(layers, "tied", "adam")
    assert [(op.name, op.kind) for op in step.phase("grad_weight")] == [
        ("head", "linear"), ("wte", "elementwise"), ("wte.weight.accumulate", "add"),
    ]  # fmt: skip
    assert [(op.param, op.dims.elements) for op in step.phase("update")] == [("wte.weight", 28), ("ln.weight", 4)]
    total = step.phase("grad_weight")[-1].outputs[0]
    assert step.phase("update")[0].inputs[:2] == ("wte.weight", total)
    with pytest.raises(NpusimError, match="the weight of 'wte' is 7x4, not 6x4"):
        from_layers([*layers[:-1], {**layers[-1], "out": 6}], "tied")


@pytest.mark.parametrize("name", ["vit-tiny", "nanogpt-char", "ds-cnn", "lenet5"])
def test_batch_of_a_shipped_list(name):
    """Every activation and gradient grows with the batch, no parameter does: as a list of that batch would say."""
    path = WORKLOADS / name / "layers.toml"
    reshaped = reshape(from_file(path), batch=4)
    text = path.read_text()
    kind = text.index('kind = "input", shape = [1, ')
    batch = path.read_text()[:kind] + text[kind:].replace("[1, ", "[4, ", 1)
    value = tomllib.loads(batch)
    made = from_layers(value["layers"], value["name"], value["optimizer"])
    assert reshaped.ops == made.ops
    assert dict(reshaped.tensors) == dict(made.tensors)


WORKLOADS = Path(__file__).parents[2] / "workloads"


@pytest.mark.parametrize("name, parameters, macs", [
    # Published parameter counts; MACs as counted by hand or published: 1.81 G, 3.66 G, 4.09 G, 0.71 G, 15.5 G, 300 M.
    ("resnet18", 11_689_512, 1_814_073_344),
    ("resnet34", 21_797_672, 3_663_761_408),
    ("resnet50", 25_557_032, 4_089_184_256),
    ("alexnet", 61_100_840, 714_188_480),
    ("vgg16-bn", 138_365_992, 15_470_264_320),
    ("mobilenetv2", 3_504_872, 300_774_272),
    # timm: 5.7 M and 1.1 GMACs without the products of attention, which are 12*2*3*197*197*64 = 178,831,872.
    ("vit-tiny", 5_717_416, 1_074_851_328 + 178_831_872),
    # nanoGPT prints 10,740,096 decayed and 4,992 other parameters; its MACs per character are N + 2*L*H*Q*T with the
    # N = 10,641,792 weights of products: 256 * (10,641,792 + 2*6*6*64*256).
    ("nanogpt-char", 10_740_096 + 4_992, 256 * (10_641_792 + 1_179_648)),
    # MLPerf Tiny: 23,756 trained parameters; conv 125*64*40, depthwise 4*125*64*9, pointwise 4*125*64*64, fc 64*12.
    ("ds-cnn", 23_756, 320_000 + 288_000 + 2_048_000 + 768),
    # conv1 28*28*6*25 + conv2 10*10*16*150 + fc 400*120 + 120*84 + 84*10
    ("lenet5", 61_706, 117_600 + 240_000 + 48_000 + 10_080 + 840),
    # conv1 32*32*16*3*9 + conv2 32*32*16*9 + conv3 8*8*32*16*9 + fc 320
    ("tiny-cnn", 5_642, 442_368 + 147_456 + 294_912 + 320),
])  # fmt: skip
def test_shipped_layer_lists(name, parameters, macs):
    shipped, made = trace.read(WORKLOADS / name / f"{name}.npz"), from_file(WORKLOADS / name / "layers.toml")
    assert shipped.digest() == made.digest() and dict(shipped.meta) == dict(made.meta)
    assert sum(op.dims.elements for op in made.phase("update")) == parameters
    assert sum(op.macs for op in made.phase("forward")) == macs


@pytest.mark.parametrize("name, weights, macs", [
    ("mcunet-5fps", 464_816, 22_455_104), ("mbv2-w0.35", 239_808, 16_648_032), ("proxyless-w0.3", 321_776, 18_620_864),
])  # fmt: skip
def test_networks_of_the_256_kb_paper(name, weights, macs):
    """The steps have the weights and MACs of the layer sizes that were read from the paper's model files."""
    with (WORKLOADS / name / "layers.csv").open(newline="") as file:
        rows = [{key: value if key in ("model", "layer") else int(value) for key, value in row.items()}
                for row in csv.DictReader(file)]  # fmt: skip
    listed = [r["out_channels"] * (r["in_channels"] // r["groups"]) * r["kernel"] ** 2 for r in rows]
    counted = sum(size * r["out_hw"] ** 2 for size, r in zip(listed, rows, strict=True))
    step = trace.read(WORKLOADS / name / f"{name}.npz")
    products = [op for op in step.phase("forward") if op.macs]
    head = products[-1].dims
    extra = 0 if rows[-1]["layer"] == "classifier" else head.weights
    assert sum(op.dims.weights for op in products) == sum(listed) + extra == weights
    assert sum(op.macs for op in products) == counted + extra == macs
    assert [op.macs for op in step.phase("grad_weight") if op.macs] == [op.macs for op in reversed(products)]
