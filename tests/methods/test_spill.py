"""A memory limit: moves by hand, nothing below the peak, never more memory, a smaller limit never moves less."""

from dataclasses import replace

import pytest
from method_nets import machine, small, workload
from test_memory_plan import byte, two_layers

from npusim import memory, method
from npusim.errors import CapacityError, NpusimError
from npusim.method_runs import compare_methods, simulate_plan
from npusim.simulation import simulate
from npusim.spill import MemoryLimit, fit


def moves(graph, base):
    """(name, bytes at 8 bits) of the moves that were added."""
    known = {op.label for op in base.ops}
    return [(op.name, op.dims.elements) for op in graph.ops if op.label not in known]


def moved_bytes(graph):
    bits = machine().precision.bits
    return sum(-(-t.elements * bits(t.kind) // 8) for name, t in graph.tensors.items() if "/slow " in name)


@pytest.mark.parametrize("over", ["error", "spill"])
def test_a_limit_at_the_peak_changes_nothing(over):
    graph = two_layers()
    found, plan = fit(graph, byte, MemoryLimit(108, over))
    assert found is graph and plan.peak_bytes == 108


def test_one_byte_less_moves_one_byte_out_and_in():
    """The peak of 108 bytes is in op 8 (fc1 dW: reads x and dY, writes 32). Of what it does not touch, fc1.weight is
    next used in op 9, fc2.weight and its gradient in op 10: a byte of those, the gradient as the later of the two."""
    graph = two_layers()
    found, plan = fit(graph, byte, MemoryLimit(107, "spill"))
    assert plan.peak_bytes == 107
    assert moves(found, graph) == [("fc2.weight.grad.out", 1), ("fc2.weight.grad.in", 1)]
    labels = [op.label for op in found.ops]
    assert labels.index("fc2.weight.grad.out:aux") == labels.index("fc1:grad_weight") - 1
    assert labels.index("fc2.weight.grad.in:aux") == labels.index("fc2:update") - 1


def test_what_has_not_changed_is_dropped():
    """Frozen weights never go out: with only the classifier trained, its 1600 weights and 10 biases alone do."""
    graph = method.apply("classifier-only", workload("mcunet-5fps")).parts[0].graph
    bits = machine("mcu-8x8").precision.bits
    found, _ = fit(graph, bits, MemoryLimit(400_000, "spill"))
    out, back = (
        sum(op.dims.elements for op in found.ops if op.name.endswith(end) and op.phase == "aux")
        for end in (".out", ".in")
    )
    assert out == 1610 < back


@pytest.mark.parametrize("net", ["small", "mcunet-5fps"])
def test_memory_stays_within_and_moves_are_monotone(net):
    graph = small("adam") if net == "small" else workload(net)
    bits = machine().precision.bits
    peak = memory.plan(graph, bits).peak_bytes
    least = max(
        sum(-(-graph.tensors[n].elements * bits(graph.tensors[n].kind) // 8) for n in {*op.inputs, *op.outputs})
        for op in graph.ops
    )
    before = 0
    for limit in range(peak, least, -max(1, (peak - least) // 12)):
        found, plan = fit(graph, bits, MemoryLimit(limit, "spill"))
        found.verify()
        assert plan.peak_bytes <= limit
        assert moved_bytes(found) >= before
        before = moved_bytes(found)
    assert before > 0


def test_moves_cost_time_traffic_and_energy():
    """Every byte is read and written once, by tasks that both engines run; the work itself stays."""
    graph = small()
    peak = memory.plan(graph, machine().precision.bits).peak_bytes
    base, runs = simulate(graph, machine()), []
    for share in (0.9, 0.6):
        found, _ = fit(graph, machine().precision.bits, MemoryLimit(int(share * peak), "spill"))
        runs.append(simulate(found, machine()))
        extra = sum(int(r) for r in runs[-1].count("dram_read_bytes")) - int(base.count("dram_read_bytes").sum())
        assert moved_bytes(found) <= extra < moved_bytes(found) + 32 * len(found.ops)
    totals = [base, *runs]
    assert [int(r.count("macs_done").sum()) for r in totals] == [int(base.count("macs_done").sum())] * 3
    for figure in (lambda r: r.schedule.cycles, lambda r: r.energy.total_pj):
        values = [figure(r) for r in totals]
        assert values == sorted(values) and values[0] < values[-1]
    again = simulate(runs[-1].graph, machine(), engine_name="simpy")
    assert again.schedule.end.tolist() == runs[-1].schedule.end.tolist()


def test_in_place_results_keep_their_storage():
    """mcunetv3 updates in place: within its smaller peak nothing moves, below it the limit holds."""
    plan = method.apply("mcunetv3", workload("mcunet-5fps"))
    hardware = machine("mcu-8x8")
    run = simulate_plan(plan, hardware)
    peak = run.memory.peak_bytes
    same = simulate_plan(plan, hardware, limit=MemoryLimit(peak, "spill"))
    assert (same.step, same.memory.peak_bytes) == (run.step, peak)
    less = simulate_plan(plan, hardware, limit=MemoryLimit(peak * 3 // 4, "spill"))
    assert less.memory.peak_bytes <= peak * 3 // 4
    assert less.step["cycles"] > run.step["cycles"]


def test_an_operation_that_is_too_large_is_named():
    with pytest.raises(CapacityError) as caught:
        fit(two_layers(), byte, MemoryLimit(60, "spill"))
    assert str(caught.value) == (
        "step 'two': fc1:update needs 64 bytes at once, the memory limit is 60: its largest tensor is 'fc1.weight' (32 "
        "bytes, weights)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sltt:T=4:temporal=1", "spilling several time steps is not modelled"),
        ("sltt:T=4", "run phases more or less than once"),
    ],
)
def test_what_cannot_spill_says_so(text, message):
    name, parameters = method.parse(text)
    plan = method.apply(name, small(), **parameters)
    with pytest.raises(NpusimError, match=message):
        simulate_plan(plan, machine(), limit=MemoryLimit(memory.of_plan(plan, machine()).peak_bytes * 4 // 5, "spill"))


def test_the_table_of_methods_within_a_limit():
    graph, hardware = small(), machine()
    free = compare_methods(graph, hardware, ["last-k:k=1", "piggyback"])
    peak = free.runs[0].memory.peak_bytes
    limited = compare_methods(graph, hardware, ["last-k:k=1", "piggyback"], limit=MemoryLimit(peak * 3 // 4, "spill"))
    columns = [(run.row()["peak_bytes"] <= peak * 3 // 4, run.step["cycles"]) for run in limited.runs]
    assert all(fits for fits, _ in columns)
    assert columns[0][1] > free.runs[0].step["cycles"]
    assert replace(limited.runs[1].memory).peak_bytes == free.runs[1].memory.peak_bytes
    assert limited.runs[1].step == free.runs[1].step
    some = compare_methods(
        graph, hardware, ["last-k:k=1", "sltt"], limit=MemoryLimit(peak * 3 // 4, "error"), misfits=True
    )
    assert set(some.misfits) == {"dense", "sltt"}
