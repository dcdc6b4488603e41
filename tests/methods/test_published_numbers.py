"""Published numbers of training methods, recomputed. Sources are in the methods' files."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from method_nets import machine, macs, small, workload

from npusim import method, rewrite
from npusim.method_runs import simulate_plan, times_of
from npusim.methods import elastic_trainer, fractrain, gradient_filtering, mcunetv3, packnet, sltt, sparcl
from npusim.simulation import simulate


@pytest.mark.parametrize(("scheme", "kib"), [("100KB", "99.84375"), ("last12", "448.046875"), ("49KB", "49.75")])
def test_mcunetv3_memory(scheme, kib):
    """Published 99.84, 448.05 and 49.75 KB (KiB); exact."""
    step = method.apply("mcunetv3", workload("mcunet-5fps"), scheme=scheme).parts[0].graph
    assert mcunetv3.published_bytes(step) / 1024 == Fraction(kib)


def test_mcunetv3_full_memory():
    """Every bias and weight: published 1400.4 KB."""
    count = len(rewrite.layers(workload("mcunet-5fps"))) - 1
    numbers, ratios = "+".join(map(str, range(count))), "+".join(["1"] * count)
    step = method.apply(
        "mcunetv3", workload("mcunet-5fps"), scheme="custom", biases=count, layers=numbers, ratios=ratios
    )
    assert round(float(mcunetv3.published_bytes(step.parts[0].graph) / 1024), 1) == 1400.4


def test_mcunetv3_macs():
    """The recorded step: 22.455, 9.154 and 0.776 M MACs, 65.59 M dense."""
    graph = workload("mcunet-5fps")
    assert sum(macs(graph).values()) == 65_595_840
    step = method.apply("mcunetv3", graph, scheme="49KB").parts[0].graph
    found = {phase: n for phase, n in macs(step).items() if n}
    assert found == {"forward": 22_455_104, "grad_input": 9_153_856, "grad_weight": 775_744}


def last_convolutions(net, classes):
    """The main path's convolutions at 224 px, and the classifier for `classes`."""
    from dataclasses import replace

    graph = workload(net)
    classifier = replace(rewrite.dims_of(rewrite.layers(graph)[-1]), k=classes)
    return [rewrite.dims_of(op) for op in gradient_filtering.main_path(graph)], classifier


def flops(net, classes, layers, r):
    found, classifier = last_convolutions(net, classes)
    chosen = found[-layers:]
    total = sum(gradient_filtering.flops(d, r, i > 0) for i, d in enumerate(chosen))
    return total + gradient_filtering.classifier_flops(classifier)


FILTERED = [
    *(("resnet18", 10, n, 1, m) for n, m in zip((1, 2, 3, 4), (128.25, 487.68, 847.15, 1140), strict=True)),
    *(("resnet18", 10, n, 2, m) for n, m in zip((1, 2, 3, 4), (8.18, 26.80, 45.45, 60.01), strict=True)),
    *(("resnet18", 10, n, 4, m) for n, m in zip((1, 2, 3, 4), (1.88, 7.93, 13.99, 19.12), strict=True)),
    *(("resnet18", 10, n, 7, m) for n, m in zip((1, 2, 3, 4), (0.3031, 3.21, 6.12, 8.90), strict=True)),
    ("mobilenetv2", 1000, 2, 1, 113.68), ("mobilenetv2", 1000, 4, 1, 160.00),
    ("mobilenetv2", 1000, 2, 2, 39.27), ("mobilenetv2", 1000, 4, 2, 53.96),
    ("resnet18", 1000, 2, 1, 489.20), ("resnet18", 1000, 4, 1, 1140),
    ("resnet18", 1000, 2, 2, 28.32), ("resnet18", 1000, 4, 2, 61.53),
]  # fmt: skip


@pytest.mark.parametrize(("net", "classes", "layers", "r", "millions"), FILTERED)
def test_gradient_filtering_flops(net, classes, layers, r, millions):
    assert flops(net, classes, layers, r) / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(
    ("net", "layers", "r", "kib"),
    [
        ("resnet18", 2, 1, 196), ("resnet18", 4, 1, 490), ("resnet18", 2, 2, 64), ("resnet18", 4, 2, 112),
        ("resnet34", 4, 1, 392), ("resnet34", 4, 2, 128),
        ("mobilenetv2", 2, 1, 245), ("mobilenetv2", 4, 1, 459.375),
        ("mobilenetv2", 2, 2, 80), ("mobilenetv2", 4, 2, 150),
    ],
)  # fmt: skip
def test_gradient_filtering_memory(net, layers, r, kib):
    found, _ = last_convolutions(net, 10)
    assert sum(gradient_filtering.kept_bytes(d, r) for d in found[-layers:]) / 1024 == pytest.approx(kib, rel=0.005)


def test_gradient_filtering_graph_keeps_the_published_memory():
    """The rewritten step itself keeps X patches of ResNet-18's last two convolutions: 64 KiB at 4 bytes."""
    step = method.apply("gradient-filtering", workload("resnet18"), r=2, layers=2).parts[0].graph
    assert sum(t.elements for name, t in step.tensors.items() if name.endswith(":x/patches")) * 4 == 64 * 1024


def test_gradient_filtering_macs():
    """ResNet-18, r = 2, n = 1: 512 x 512 weights, 4 x 4 patches, no taps: 4,194,304 MACs, and the classifier."""
    step = method.apply("gradient-filtering", workload("resnet18"), r=2, layers=1).parts[0].graph
    assert macs(step)["grad_weight"] == 512 * 512 * 16 + 512 * 1000


def test_packnet_densities():
    assert [round(packnet.density(t), 3) for t in (1, 2, 3, 4)] == [1.0, 0.5, 0.375, 0.281]
    step = method.apply("packnet", small(), task=4, skip=1).parts[0].graph
    for mask in step.update_masks.values():
        assert mask.density == pytest.approx(0.28125, abs=0.5 / mask.size)


def test_sparcl_cost():
    """0.775 * (0.25 + 0.25 + 0.20) / 3 = 0.1808; the masked layers of the step have it to a mask's rounding."""
    assert sparcl.cost() == pytest.approx(0.181, abs=0.0005)
    graph = workload("resnet18")
    plan = method.apply("sparcl", graph)
    (part,) = plan.parts
    assert len(part.graph.update_masks) == len(part.graph.task_masks) == 16
    masked = [op for op in part.graph.ops if op.param in part.graph.update_masks and op.macs]
    from dataclasses import replace

    rest = replace(part.graph, ops=tuple(masked))
    share = float(part.share) * rewrite.useful_macs(rest) / sum(op.macs for op in masked)
    assert share == pytest.approx(sparcl.cost(), rel=1e-4)


def test_sparcl_published_flops():
    """Published 11.1e15 -> 2.0e15 FLOPs is a share of 0.180."""
    assert pytest.approx(sparcl.cost(), abs=0.005) == 2.0 / 11.1


@pytest.mark.parametrize("seed", range(20))
def test_elastic_trainer_selector_against_every_subset(seed):
    """With times in whole quanta the choice is worth as much as the best of all 2^n subsets, and fits."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 11))
    own = [int(t) for t in rng.integers(1, 40, count)]
    passed = np.concatenate([[0], np.cumsum(rng.integers(0, 30, count - 1))]) if count > 1 else np.zeros(1)
    reach = [int(t) for t in passed]
    worth = [float(v) for v in rng.random(count)]
    budget = int(rng.integers(1, 400))

    def cost(subset):
        return sum(own[i] for i in subset) + reach[max(subset)] if subset else 0

    subsets = [s for n in range(count + 1) for s in combinations(range(count), n) if cost(s) <= budget]
    best = max(sum(worth[i] for i in s) for s in subsets)
    chosen = elastic_trainer.select(own, reach, worth, budget, quanta=budget)
    assert cost(chosen) <= budget
    assert sum(worth[i] for i in chosen) == pytest.approx(best)


@pytest.mark.parametrize("rho", [0.5, 0.6, 0.8])
def test_elastic_trainer_keeps_its_budget(rho):
    """Simulated: the step takes at most rho of the dense one, for what the choice prices (no norms, no adds)."""
    graph = workload("mcunet-5fps")
    dense = simulate(graph, machine())
    times = times_of(dense)
    plan = method.apply("elastic-trainer", graph, times, rho=rho)
    assert simulate_plan(plan, machine()).step["cycles"] <= rho * dense.schedule.cycles * 1.02


def test_sltt_cost_rule():
    """T*F + K*(E + G), on the plan's own MACs."""
    graph = small()
    found = macs(graph)
    backward = found["grad_input"] + found["grad_weight"]
    for steps, kept in ((1, 1), (6, 6), (6, 2)):
        plan = method.apply("sltt", graph, T=steps, K=kept)
        total = sum(part.share * sum(op.macs for op in part.step().ops) for part in plan.parts)
        assert total == sltt.cost(found["forward"], backward, steps, kept)


def test_sltt_memory_is_that_of_one_step():
    graph = small()
    one, sltt_plan, bptt = (
        simulate_plan(plan, machine()).memory.peak_bytes
        for plan in (
            method.apply("dense", graph), method.apply("sltt", graph, T=6), method.apply("sltt", graph, T=6, temporal=1)
        )
    )  # fmt: skip
    assert one == sltt_plan < bptt


def test_fractrain_cost_rule():
    """F*a*w/32^2 + E*g*w/32^2 + G*a*g/32^2; full precision is the number of MACs."""
    assert fractrain.weighted_macs(100, 200, 300, 32, 32, 32) == 600
    assert fractrain.weighted_macs(1024, 0, 0, 4, 8, 32) == 32
    assert fractrain.weighted_macs(0, 1024, 0, 4, 8, 16) == 128
    assert fractrain.weighted_macs(0, 0, 1024, 4, 8, 16) == 64


def test_centre_kernel_macs():
    """G / (R*S): conv2 of `small` has 3x3 taps, so 73728 becomes 8192."""
    graph = method.apply("centre-kernel", small()).parts[0].graph
    (op,) = [op for op in graph.phase("grad_weight") if op.name == "conv2"]
    assert op.macs == 73728 // 9


def test_ksm_trainables():
    """One score per kernel: K*C of the backbone's layers; mask state divided by R*S = 9."""
    graph = method.apply("ksm", small()).parts[0].graph
    elements = method.apply("ksm", small(), level="element").parts[0].graph
    size = {
        g: sum(t.elements for n, t in step.tensors.items() if n.endswith("/scores"))
        for g, step in (("k", graph), ("e", elements))
    }
    assert size["e"] == 9 * size["k"]


def test_fasthebb_products():
    """K x T . T x CRS as grad_weight and K x K . K x CRS; nothing is propagated to the backbone."""
    graph = method.apply("fasthebb", small()).parts[0].graph
    (op,) = [op for op in graph.ops if op.name == "conv2.decorrelate"]
    assert op.macs == 16 * 16 * 72
    assert not [op for op in graph.phase("grad_input") if op.name != "softmax_loss"]


def test_dynamic_sparse_share():
    """G = F*|S|/C of the update layers: conv2 with a quarter of 8 channels."""
    graph = method.apply("dynamic-sparse", small(), layers=1, share=0.25).parts[0].graph
    (op,) = [op for op in graph.phase("grad_weight") if op.name == "conv2"]
    assert op.macs == 73728 // 4
    assert graph.tensors[op.inputs[1]].shape[1] == 2


def test_instance_filtering_formula():
    """keep * (F + channels*(E + G)) for a layer with whole channels, beside the filter."""
    plan = method.apply("instance-filtering", small(), keep=0.5, channels=0.5)
    rest = plan.parts[1]
    assert rest.share == Fraction(1, 2)
    (op,) = [op for op in rest.graph.phase("grad_weight") if op.name == "conv2"]
    assert op.macs == 73728 // 2
