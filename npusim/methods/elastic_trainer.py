"""ElasticTrainer: the set of tensors with the most importance that fits a time budget, by dynamic programming.

Rule: maximise the summed importance of the chosen weights subject to T_fw + T_bw(m) <= rho * T, where
T_bw(m) = sum of t_dw of the chosen + sum of t_dy from the output down to the deepest chosen. The dynamic programme
works on `quanta` time steps of the budget, t_dw rounded up, so that the budget is never exceeded.
The simulator's own times of the dense step replace the paper's offline profile: t_dw is grad_weight and update of
a layer, t_dy every grad_input operation between two layers' gradients.
Source: Huang et al., MobiSys 2023, doi 10.1145/3581791.3596852 (selector verified). Parameters: rho 0..1 (paper:
0.367..0.7); quanta. Not modelled: importance is a property of the data (gradient times change of the weight);
the square root of a tensor's size stands in for it. The choice itself, every few epochs, is not priced.
"""

from collections.abc import Mapping, Sequence

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.method import Method, Parameter


def select(
    own: Sequence[int], reach: Sequence[int], importance: Sequence[float], budget: int, quanta: int = 1000
) -> tuple[int, ...]:
    """Numbers of the chosen tensors, 0 nearest the output; () when none fits.

    `own[i]`: time of the gradient of tensor i; `reach[i]`: time of error propagation from the output to it.
    """
    import numpy as np

    if budget <= 0 or not own:
        return ()
    quantum = max(1, -(-budget // quanta))
    weight = [-(-t // quantum) for t in own]
    size = budget // quantum
    best = np.zeros((len(own) + 1, size + 1))
    for i, (cost, worth) in enumerate(zip(weight, importance, strict=True)):
        best[i + 1] = best[i]
        if cost <= size:
            best[i + 1, cost:] = np.maximum(best[i, cost:], best[i, : size + 1 - cost] + worth)
    found, deepest, left = 0.0, -1, 0
    for i, (cost, worth) in enumerate(zip(weight, importance, strict=True)):
        room = (budget - reach[i]) // quantum - cost
        if room >= 0 and best[i, min(room, size)] + worth > found:
            found, deepest, left = best[i, min(room, size)] + worth, i, min(room, size)
    if deepest < 0:
        return ()
    chosen = [deepest]
    for i in range(deepest - 1, -1, -1):
        if best[i + 1, left] != best[i, left]:
            chosen.append(i)
            left -= weight[i]
    return tuple(sorted(chosen))


def profile(graph: StepGraph, times: Mapping[tuple[str, str], int]) -> tuple[list[str], list[int], list[int]]:
    """Weights from the output to the input, their own times and the time to reach them."""
    params = {op.param for op in rewrite.layers(graph)}
    names, own, reach, passed = [], [], [], 0
    backward = [op for op in graph.ops if op.phase in rewrite.BACKWARD]
    for op in backward:
        spent = times.get((op.name, op.phase), 0)
        if op.phase == "grad_weight" and op.param in params:
            names.append(op.param)
            own.append(spent + times.get((op.name, "update"), 0))
            above = any(other.name == op.name and other.phase == "grad_input" for other in backward)
            reach.append(passed - (times.get((op.name, "grad_input"), 0) if above else 0))
        elif op.phase == "grad_input":
            passed += spent
    return names, own, reach


def train(graph: StepGraph, rho: float, quanta: int, times: Mapping[tuple[str, str], int]) -> StepGraph:
    names, own, reach = profile(graph, times)
    if not names:
        raise rewrite.misfit("elastic-trainer", graph, "-", "the step has no weight gradient to choose")
    total = sum(times.values())
    forward = sum(cycles for (_, phase), cycles in times.items() if phase == "forward")
    importance = [graph.tensors[name].elements ** 0.5 for name in names]
    chosen = select(own, reach, importance, int(rho * total) - forward, quanta)
    if not chosen:
        need = forward + min(o + r for o, r in zip(own, reach, strict=True))
        raise rewrite.misfit(
            "elastic-trainer", graph, names[0], f"no tensor fits rho = {rho:g}; at least {need / max(total, 1):.3f}"
        )
    modules = {names[i].rpartition(".")[0] for i in chosen}
    wanted = {p for p in rewrite.parameters(graph) if p.rpartition(".")[0] in modules}
    return rewrite.keep(graph, wanted)


METHOD = Method(
    "elastic-trainer", "the most important tensors that fit a time budget", train,
    ("alive", "truncate_at", "schedule"),
    (
        Parameter("rho", 0.6, "time of a step, of the dense step's", 0, 1),
        Parameter("quanta", 1000, "time steps of the dynamic programme", 10, 10**6),
    ),
    timed=True,
)  # fmt: skip
