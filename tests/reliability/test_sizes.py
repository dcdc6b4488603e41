"""Numbers that 64 bits cannot hold and programs that memory cannot hold are refused before anything is computed."""

import resource
import time
from math import prod

import numpy as np
import pytest
from examples import layer_step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npusim import engine, npu
from npusim import program as tp
from npusim.errors import CapacityError, NpusimError, TooLongError
from npusim.graph import Conv, Gemm, Op, Pool, StepGraph, Vector
from npusim.mapping import limits
from npusim.simulation import simulate

HUGE = st.sampled_from([1, 2, 3, 7, 64, 2**16, 2**20 + 1, 2**31, 2**40])
BIG_MEMORY = {f"buffers.{name}.{key}": 2**20 for name in ("a", "b", "accumulator") for key in ("bytes",)}


@pytest.fixture(scope="module")
def machine():
    return npu.load("edge-16x16")


def memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@settings(max_examples=100, deadline=20_000, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(HUGE, min_size=5, max_size=5), window=st.lists(HUGE, min_size=4, max_size=4), kind=st.integers(0, 3)
)
def test_steps_of_any_size_are_simulated_or_refused(machine, sizes, window, kind):
    n, c, h, w, k = sizes
    if kind == 0:
        dims = Conv(n, c, h, w, k, window[0], window[1], (window[2], window[3]), (window[0] // 2, window[1] // 2))
        graph = layer_step(dims)
    elif kind == 1:
        graph = StepGraph("s", (Op("m", "forward", "matmul", Gemm(n, c, h, w)),), {})
    elif kind == 2:
        graph = StepGraph("s", (Op("v", "forward", "elementwise", Vector(n, c)),), {})
    else:
        graph = StepGraph("s", (Op("p", "forward", "pool", Pool(n, c, h, w, h, w, window[0], window[1])),), {})
    try:
        graph.verify()
    except NpusimError:
        return
    if sum(op.macs for op in graph.ops) > 2**27 or prod(sizes) > 2**27:
        # What is allowed, but takes long, is measured by the long run; here only that it is counted exactly or refused.
        try:
            limits.check(graph, machine)
        except CapacityError as error:
            assert "can be counted exactly" in str(error) or "can be mapped" in str(error)
        return
    try:
        simulate(graph, machine)
    except CapacityError as error:
        assert graph.ops[0].name in str(error) or "the step" in str(error)


def test_the_limit_is_where_the_sum_passes_60_bits(machine):
    unit = limits._cycles_of_one(machine)
    assert limits.MAX_SUM == 2**60
    most = limits.MAX_SUM // unit // limits.ELEMENT_OPS
    for elements, refused in ((most - 1, False), (most + 1, True)):
        graph = StepGraph("s", (Op("v", "forward", "elementwise", Vector(elements)),), {})
        if refused:
            with pytest.raises(CapacityError, match="could pass 2\\^60 on edge-16x16"):
                limits.check(graph, machine)
        else:
            limits.check(graph, machine)


def test_many_operations_add_up(machine):
    one = Vector(limits.MAX_SUM // limits._cycles_of_one(machine) // limits.ELEMENT_OPS // 4)
    ops = [Op(f"v{i}", "forward", "elementwise", one) for i in range(5)]
    limits.check(StepGraph("s", tuple(ops[:4]), {}), machine)
    with pytest.raises(CapacityError, match=r"^v4:forward"):
        limits.check(StepGraph("s", tuple(ops), {}), machine)


@pytest.mark.parametrize("cycles", [2**59, 2**60 - 2**10, 2**60, 2**61, 2**62, 10**18])
@pytest.mark.parametrize("name", engine.ENGINES)
def test_a_program_of_a_quintillion_cycles_is_exact_or_refused(name, cycles):
    zeros, small = np.zeros(2, np.int64), np.zeros(2, np.uint8)
    program = tp.TileProgram(
        np.full(2, tp.COMPUTE, np.uint8), np.zeros(2, np.int32), np.array([cycles, 1]), zeros, zeros, small, small,
        zeros, np.array([0, 0, 1]), np.array([0], np.int32),
    )  # fmt: skip
    if cycles + 1 >= engine.MAX_CYCLES:
        with pytest.raises(TooLongError):
            engine.run(program, np.ones(5, np.int64), name)
    else:
        assert engine.run(program, np.ones(5, np.int64), name).end.tolist() == [cycles, cycles + 1]


def test_too_many_tiles_are_refused_at_once(machine):
    """2^36 elements through 16-byte buffers: hundreds of millions of tasks, refused before any is made."""
    tiny = machine.replace(
        {f"buffers.{name}.{key}": value for name in ("a", "b", "accumulator")
         for key, value in (("bytes", 64), ("bytes_per_cycle", 8), ("banks", 1))}
    )  # fmt: skip
    before, begin = memory_mb(), time.monotonic()
    for op in (
        Op("v", "forward", "elementwise", Vector(2**36)),
        Op("m", "forward", "matmul", Gemm(1, 2**14, 2**14, 2**10)),
    ):
        tensors = {}
        if op.kind == "elementwise":
            from npusim.graph import Tensor

            tensors = {"x": Tensor("x", (2**36,), "activation")}
            op = Op("v", "forward", "elementwise", Vector(2**36), ("x",), ("x",))
        with pytest.raises(CapacityError, match="tasks; at most 16,777,216 are simulated"):
            simulate(StepGraph("s", (op,), tensors), tiny)
    assert memory_mb() - before < 500
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("stride, window", [(2**20, 3), (3, 2**12), (2**13, 2**13)])
def test_windows_and_strides_that_would_be_walked_forever_are_refused(machine, stride, window):
    dims = Conv(1, 1, 2**21, 2**21, 1, window, window, (stride, stride))
    with pytest.raises(CapacityError, match="layer:"):
        simulate(layer_step(dims), machine)
