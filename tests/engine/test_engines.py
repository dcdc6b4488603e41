"""The SimPy engine is the specification; the numba engine must agree with it bit for bit."""

import numpy as np
import pytest

from npusim import engine
from npusim.program import COMPUTE, FENCE, LOAD, STORE, VECTOR, TileProgram

CAPACITY = np.array([1, 1, 1, 2, 1])


def build(tasks):
    """A program from (kind, cycles, tail, dependencies) rows."""
    n = len(tasks)
    ptr = np.concatenate([[0], np.cumsum([len(t[3]) for t in tasks])]).astype(np.int64)
    idx = np.array([d for t in tasks for d in t[3]], dtype=np.int32)
    column = lambda values, dtype=np.int64: np.array(values, dtype=dtype)  # noqa: E731
    zeros = np.zeros(n, np.int64)
    small = np.zeros(n, np.uint8)
    return TileProgram(
        column([t[0] for t in tasks], np.uint8), np.zeros(n, np.int32), column([t[1] for t in tasks]),
        column([t[2] for t in tasks]), zeros, small, small, zeros, ptr, idx,
    )  # fmt: skip


def random_program(rng):
    tasks = []
    for i in range(int(rng.integers(1, 40))):
        kind = int(rng.choice([LOAD, STORE, COMPUTE, VECTOR, FENCE]))
        dma = kind in (LOAD, STORE)
        deps = sorted(rng.choice(i, size=int(rng.integers(0, min(i, 3) + 1)), replace=False).tolist())
        cycles = 0 if kind == FENCE else int(rng.integers(0, 9))
        tasks.append((kind, cycles, int(rng.integers(0, 6)) if dma else 0, deps))
    return build(tasks)


@pytest.mark.parametrize("block", range(8))
def test_engines_agree_on_random_programs(block):
    rng = np.random.default_rng(block)
    for _ in range(250):
        program = random_program(rng)
        capacity = rng.integers(1, 4, size=5)
        capacity[0] = 1
        for fast, slow in zip(*(engine.run(program, capacity, e) for e in engine.ENGINES), strict=True):
            np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize("name", engine.ENGINES)
def test_hand_computed_double_buffering(name):
    # Two loads of 10 bus cycles and 5 latency; the second overlaps the first's latency on two channels:
    # ends 15 and 25. Compute 20 after the first load: 15..35, the next 35..55 (its load ended at 25).
    # The store takes the bus at 55 for 4 cycles and ends 5 later: 64.
    tasks = [(LOAD, 10, 5, []), (LOAD, 10, 5, []), (COMPUTE, 20, 0, [0]), (COMPUTE, 20, 0, [1, 2]), (STORE, 4, 5, [3])]
    result = engine.run(build(tasks), CAPACITY, name)
    assert result.start.tolist() == [0, 0, 15, 35, 55]
    assert result.bus.tolist() == [0, 10, 15, 35, 55]
    assert result.end.tolist() == [15, 25, 35, 55, 64]


@pytest.mark.parametrize("name", engine.ENGINES)
def test_the_oldest_request_in_program_order_wins_a_free_unit(name):
    # All three become ready at cycle 0; task 2 waits for a fence that ends in the same cycle, so it is
    # still granted before tasks 3 and 4 by program order only after task 0 and 1.
    tasks = [(FENCE, 0, 0, []), (COMPUTE, 3, 0, [0]), (COMPUTE, 2, 0, []), (COMPUTE, 1, 0, [0])]
    assert engine.run(build(tasks), CAPACITY, name).start.tolist() == [0, 0, 3, 5]


def test_a_program_that_could_overflow_is_refused():
    with pytest.raises(OverflowError):
        engine.run(build([(COMPUTE, 2**61, 0, []), (COMPUTE, 2**61, 0, [0])]), CAPACITY)


def test_an_empty_program_takes_no_time():
    assert engine.run(build([]), CAPACITY).cycles == 0
