"""Fast-NTK: normalisation parameters only, by a kernel solve instead of descent.

Rule: F once; per-sample Jacobians of the `outputs` outputs with respect to the parameters P of the normalisation
layers: one backward pass per output; kernel = J J^T (N*outputs squared, over P); a solve.
Formula: F + outputs*E + (N*outputs)^2 * P MACs + (N*outputs)^3 / 3 operations. Source: arXiv 2312.14923.
Parameters: outputs 1.. (the paper takes one logit difference per class pair; 1 here is one scalar output).
Not modelled: prompts instead of norms; the kernel over a whole data set (here over the step's batch).
"""

from fractions import Fraction

from npusim import rewrite
from npusim.graph import Gemm, Op, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter, Part, Plan


def train(graph: StepGraph, outputs: int) -> Plan:
    norms = [op for op in graph.phase("forward") if op.kind in ("batch_norm", "layer_norm")]
    if not norms:
        raise rewrite.misfit("fast-ntk", graph, "-", "the step has no normalisation layer")
    modules = {op.name for op in norms}
    wanted = {name for name in rewrite.parameters(graph) if name.rpartition(".")[0] in modules}
    step = rewrite.keep(graph, wanted)
    batch = graph.tensors[norms[0].inputs[0]].shape[0]
    rows, size = batch * outputs, sum(graph.tensors[name].elements for name in wanted)
    jacobian = Tensor("jacobian", (rows, size), "state")
    other = Tensor("jacobian/transposed", (size, rows), "activation")
    kernel, weights = Tensor("kernel", (rows, rows), "activation"), Tensor("kernel/solution", (rows,), "state")
    solve = Op("kernel.solve", "aux", "elementwise", Vector(rows, -(-(rows**2) // 3)), (kernel.name,), (weights.name,))
    product = Op("kernel", "forward", "matmul", Gemm(1, rows, rows, size), (jacobian.name, other.name), (kernel.name,))
    gram = StepGraph(f"{graph.name} kernel", (product, solve), {t.name: t for t in (jacobian, other, kernel, weights)})
    backward = Part(step, Fraction(outputs), ("grad_input", "grad_weight", "aux"))
    return Plan((Part(step, phases=("forward",)), backward, Part(gram), Part(step, phases=("update",))))


METHOD = Method(
    "fast-ntk", "normalisation parameters by a kernel solve", train, ("alive", "schedule"),
    (Parameter("outputs", 1, "outputs whose Jacobian is taken", 1, 100000),),
)  # fmt: skip
