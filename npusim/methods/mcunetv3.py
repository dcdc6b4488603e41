"""Sparse update of MCUNetV3: biases of the last layers, weights of a few layers and of a share of their input channels.

Rule: error propagation ends at the deepest layer that needs a bias gradient. grad_weight runs for the chosen layers on
the first ceil(ratio*C) input channels, whose X alone is kept. Activations keep one bit per output (inside the clamp
or not). Updates run as soon as their gradient is there ("reorder"), in place, without momentum; batch 1, int8 forward.
Memory beyond the model, as the authors count it (`published_bytes`): X of the selected channels 8 bit, range masks
1 bit per output of every layer reached, updated weights 8 bit, biases 32 bit, classifier input 8 bit.
Source: Lin et al., NeurIPS 2022 (arXiv 2206.15472); mit-han-lab/tiny-training and tinyengine (MIT).
Parameters: scheme, a published one for mcunet-5fps, or auto (biases of the last half of the layers; in it, weights of
every third layer at 1/4: a default without the paper's search), or custom: biases, layers and ratios ('24+27+30',
'1/4+1/2+1/2', numbered from 0 at the input); reorder 0 or 1; int8 0 or 1 (activations and weights of 8 bits).
Not modelled: the search for the scheme (contribution analysis), scaling of gradients (QAS), casts to float.
"""

from fractions import Fraction

from npusim import rewrite
from npusim.graph import Conv, Op, StepGraph
from npusim.method import MemoryPolicy, Method, Parameter, Part, Plan

# biases, layers with a weight gradient, their shares of input channels.
SCHEMES: dict[str, tuple[int, str, str]] = {
    "100KB": (22, "21+24+27+30+36+39", "1+1+1+1+1/8+1/4"),
    "49KB": (20, "24+27+30", "1/4+1/2+1/2"),
    "last12": (12, "30+31+32+33+34+35+36+37+38+39+40+41", "1+1+1+1+1+1+1+1+1+1+1+1"),
}


def scheme_of(graph: StepGraph, scheme: str, biases: int, layers: str, ratios: str) -> tuple[int, dict[int, Fraction]]:
    """Biases trained, and the ratio of every layer with a weight gradient by its number."""
    found = rewrite.layers(graph)[:-1]
    count = len(found)
    if count < 1:
        raise rewrite.misfit("mcunetv3", graph, "-", "no layer in front of the classifier")
    if scheme == "auto":
        half = -(-count // 2)
        return half, {i: Fraction(1, 4) for i in range(count - half, count, 3)}
    if scheme != "custom":
        biases, layers, ratios = SCHEMES[scheme]
    if biases > count:
        raise rewrite.misfit("mcunetv3", graph, str(biases), f"{biases} biases, but {count} layers before the last")
    numbers, shares = [_whole(text, graph) for text in _items(layers)], [_ratio(t, graph) for t in _items(ratios)]
    if len(numbers) != len(shares):
        raise rewrite.misfit("mcunetv3", graph, layers, f"{len(numbers)} layers but {len(shares)} ratios")
    for i in numbers:
        if i >= count:
            raise rewrite.misfit("mcunetv3", graph, str(i), f"out of range: the layers in front are 0..{count - 1}")
        if i < count - biases:
            raise rewrite.misfit("mcunetv3", graph, found[i].name, f"number {i} lies in front of the last {biases}")
    return biases, dict(zip(numbers, shares, strict=True))


def _items(text: str) -> list[str]:
    return [item for item in text.split("+") if item]


def _whole(text: str, graph: StepGraph) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise rewrite.misfit("mcunetv3", graph, text, "layers are whole numbers joined by +")
    return int(text)


def _ratio(text: str, graph: StepGraph) -> Fraction:
    try:
        ratio = Fraction(text)
    except (ValueError, ZeroDivisionError):
        ratio = Fraction(-1)
    if not 0 < ratio <= 1:
        raise rewrite.misfit("mcunetv3", graph, "-", f"ratio {text!r} is not in 0..1")
    return ratio


def train(
    graph: StepGraph, scheme: str, biases: int, layers: str, ratios: str, reorder: int, int8: int
) -> Plan:  # fmt: skip
    bias_count, shares = scheme_of(graph, scheme, biases, layers, ratios)
    found = rewrite.layers(graph)
    front = found[:-1]
    trained = rewrite.parameters(graph)
    wanted = set(rewrite.of_layer(graph, found[-1]))
    for op in front[len(front) - bias_count :]:
        wanted |= {name for name in rewrite.of_layer(graph, op) if name != op.param}
    wanted |= {front[i].param for i in shares if front[i].param in trained}
    step = rewrite.sign_masks(rewrite.keep(graph, wanted))
    counts = {front[i].param: -(-rewrite.dims_of(front[i]).c * s.numerator // s.denominator) for i, s in shares.items()}
    step = rewrite.select_inputs(step, counts)
    step = rewrite.interleaved(step) if reorder else step
    bits = {"activation": 8, "weight": 8} if int8 else {}
    return Plan((Part(step, bits=bits),), MemoryPolicy(in_place=bool(reorder)))


def published_bytes(graph: StepGraph) -> Fraction:
    """The authors' memory count of a rewritten step (exact, in bytes)."""
    last = rewrite.layers(graph)[-1]
    bits = sum(t.elements for t in graph.tensors.values() if t.kind == "mask")
    for op in graph.phase("grad_weight"):
        if op.kind == "bias_grad":
            bits += 32 * graph.tensors[op.outputs[0]].elements if op.name != last.name else 0
        elif op.param == last.param:
            bits += 8 * rewrite.dims_of(op).c
        else:
            bits += 8 * (graph.tensors[op.inputs[1]].elements + _updated(op))
    return Fraction(bits, 8)


def _updated(op: Op) -> int:
    dims = op.dims
    assert isinstance(dims, Conv)
    return dims.weights


METHOD = Method(
    "mcunetv3", "biases of the last layers, weights of few layers and channels, reordered updates", train,
    ("alive", "truncate_at", "axis_mask", "bits", "saved_tensor", "schedule"),
    (
        Parameter("scheme", "auto", "published scheme of mcunet-5fps, auto or custom",
                  choices=("auto", "custom", *SCHEMES)),
        Parameter("biases", 0, "custom: layers before the last whose bias is trained", 0, 10000),
        Parameter("layers", "", "custom: numbers of the layers whose weights are trained, joined by +"),
        Parameter("ratios", "", "custom: their shares of input channels, joined by +"),
        Parameter("reorder", 1, "1: updates run as soon as their gradient is there", 0, 1),
        Parameter("int8", 1, "1: activations and weights of 8 bits", 0, 1),
    ),
)  # fmt: skip
