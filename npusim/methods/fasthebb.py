"""FastHebb: local Hebbian updates, no error propagation; the classifier alone learns by gradient.

Rule: each layer's update is two products, K x T . T x CRS (outputs with inputs, shaped like grad_weight) and
K x K . K x CRS (outputs' correlation with the weights), made right after its forward, so X need not be kept.
Formula: F + G + K*K*CRS per layer. Source: Lagani et al. (arXiv 2207.03172). No parameters.
Not modelled: the K x K correlation itself (K*K*T), which FastHebb folds into the batch means; grouped layers take
their groups' products.
"""

from dataclasses import replace

from npusim import rewrite
from npusim.graph import Gemm, Op, StepGraph, Tensor
from npusim.method import Method


def train(graph: StepGraph) -> StepGraph:
    found = rewrite.layers(graph)
    if len(found) < 2:
        raise rewrite.misfit("fasthebb", graph, found[0].name if found else "-", "no layer before the classifier")
    hidden = {op.param for op in found[:-1]}
    step = rewrite.keep(graph, rewrite.of_layer(graph, found[-1]))
    updates = {op.param: op for op in graph.phase("update") if op.param in hidden}
    gradients = {op.param: op for op in graph.phase("grad_weight") if op.param in hidden}
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "forward" or op.param not in gradients or op.param not in updates:
            return op
        gradient, update, dims = gradients[op.param], updates[op.param], rewrite.dims_of(op)
        dw = graph.tensors[gradient.outputs[0]]
        k, crs = dims.k // dims.groups, dims.c // dims.groups * dims.r * dims.s
        means = Tensor(f"{op.name}:y/correlation", (dims.groups, k, k), "activation")
        made = [replace(gradient, inputs=(op.outputs[0], op.inputs[0]))]
        made.append(Op(f"{op.name}.decorrelate", "forward", "matmul", Gemm(dims.groups, k, crs, k),
                       (means.name, op.param), (dw.name,)))  # fmt: skip
        tensors.update({t.name: t for t in (dw, means, *(graph.tensors[n] for n in update.inputs))})
        return (op, *made, update)

    return rewrite.rewritten(step, change, tensors)


METHOD = Method("fasthebb", "local Hebbian updates, no error propagation", train, ("alive", "truncate_at", "schedule"))
