"""DA3: additive adaptors beside a frozen backbone, whose activations need not be kept.

Rule: every `every`-th ungrouped convolution of the main path behind the first gets an adaptor on its input: average
pooling by `pool`, a 1x1 convolution, added to its output. An addition passes the error on without any stored
activation; the backbone keeps one bit per activation output for its error path.
Formula: F + E + per adaptor (1/pool^2)*N*P*Q*K*C for forward and for the gradient. Source: Yang et al., CVPR 2022
(arXiv 2012.01362): memory 5-37x less, time 2x less on a Jetson Nano. Parameters: every, pool 1...
Not modelled: the attention in the published adaptor (its exact layers are not given in the abstract); errors into the
adaptors' inputs. Frozen norms use stored statistics.
"""

from npusim import rewrite
from npusim.graph import Conv, Op, Pool, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter
from npusim.methods.gradient_filtering import main_path


def train(graph: StepGraph, every: int, pool: int) -> StepGraph:
    chosen = {op.param: op for op in _dense(main_path(graph)[1:])[::every]}
    if not chosen:
        raise rewrite.misfit("da3", graph, "-", "no convolution behind the first to put an adaptor on")
    # The error has to reach the adaptors: keep what their outputs' gradients need, then drop backbone gradients.
    wanted = rewrite.of_layer(graph, rewrite.layers(graph)[-1]) | set(chosen)
    step = rewrite.frozen_norms(rewrite.sign_masks(rewrite.keep(graph, wanted)))
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.param not in chosen or op.kind == "bias_grad":
            return op
        adaptor = _Adaptor(step, chosen[op.param], pool, tensors)
        match op.phase:
            case "forward":
                return [op, *adaptor.forward()]
            case "grad_weight":
                return adaptor.backward(op.inputs[0])
            case "update":
                return adaptor.update()
        return op

    return rewrite.rewritten(step, change, tensors)


def _dense(found: list[Op]) -> list[Op]:
    return [op for op in found if rewrite.dims_of(op).groups == 1]


class _Adaptor:
    """Pooling, a 1x1 convolution and an addition beside one convolution."""

    def __init__(self, graph: StepGraph, layer: Op, pool: int, tensors: dict[str, Tensor]) -> None:
        d = rewrite.dims_of(layer)
        self.graph, self.layer, self.tensors = graph, layer, tensors
        window = (min(pool * d.stride[0], d.h), min(pool * d.stride[1], d.w))
        rows, cols = max(1, d.h // window[0]), max(1, d.w // window[1])
        self.pool_in = Pool(d.n, d.c, d.h, d.w, rows, cols, *window, stride=window)
        self.dims = Conv(d.n, d.c, rows, cols, d.k)
        out = (max(1, d.p // rows), max(1, d.q // cols))
        self.pool_out = Pool(d.n, d.k, d.p, d.q, rows, cols, *out, stride=out)
        self.name = f"{layer.name}.adaptor"
        small, weight = (d.n, d.c, rows, cols), (d.k, d.c, 1, 1)
        self.x = self.tensor("x", small, "activation")
        self.y = self.tensor("y", (d.n, d.k, rows, cols), "activation")
        self.dy = self.tensor("dy", (d.n, d.k, rows, cols), "gradient")
        self.weight = self.tensor("weight", weight, "weight")
        self.gradient = self.tensor("weight.grad", weight, "weight_gradient", f"{self.name}.weight")

    def tensor(self, part: str, shape: tuple[int, ...], kind: str, grad_of: str = "") -> Tensor:
        name = f"{self.name}.{part}"
        self.tensors[name] = Tensor(name, shape, kind, grad_of=grad_of)
        return self.tensors[name]

    def forward(self) -> list[Op]:
        x, y = self.layer.inputs[0], self.layer.outputs[0]
        return [
            Op(f"{self.name}.pool", "forward", "pool", self.pool_in, (x,), (self.x.name,)),
            Op(self.name, "forward", "conv", self.dims, (self.x.name, self.weight.name), (self.y.name,),
               self.weight.name),
            Op(f"{self.name}.add", "forward", "add", Vector(self.graph.tensors[y].elements), (y, self.y.name), (y,)),
        ]  # fmt: skip

    def backward(self, dy: str) -> list[Op]:
        return [
            Op(f"{self.name}.pool_dy", "aux", "pool", self.pool_out, (dy,), (self.dy.name,)),
            Op(self.name, "grad_weight", "conv", self.dims, (self.dy.name, self.x.name), (self.gradient.name,),
               self.weight.name),
        ]  # fmt: skip

    def update(self) -> list[Op]:
        names = (self.weight.name, self.gradient.name)
        return [Op(self.name, "update", "sgd", Vector(self.weight.elements), names, names[:1], self.weight.name)]


METHOD = Method(
    "da3", "additive adaptors beside a frozen backbone", train, ("alive", "saved_tensor"),
    (
        Parameter("every", 1, "an adaptor on every n-th convolution", 1, 10000),
        Parameter("pool", 2, "pooling in front of the adaptor", 1, 1024),
    ),
)  # fmt: skip
