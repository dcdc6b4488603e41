"""Programs of segments between fences, where the fast engine takes short cuts: the times are the specification's."""

import numpy as np
import pytest
from test_engines import build

from npusim import catalogue, engine, npu
from npusim.engine import _kernels, _segment_kernels
from npusim.mapping.lower import lower
from npusim.program import COMPUTE, FENCE, LOAD, STORE, VECTOR
from npusim.trace import read


def random_segment(rng, opening):
    """Rows for `build` of a tile loop after task `opening`: loads into slots, a chain of work, stores; then a fence."""
    tasks, used, waiting = [], {}, []
    slots, short, last = int(rng.integers(1, 4)), bool(rng.integers(0, 2)), opening
    for step in range(int(rng.integers(1, 8))):
        deps = [last]
        for buffer in "ab":
            if rng.random() < 0.8:
                slot = (buffer, step % slots)
                # A slot that was used long ago may be filled before one that the program names earlier.
                tasks.append((LOAD, int(rng.integers(1, 9)), 5, [used.get(slot, opening)]))
                deps.append(opening + len(tasks))
                used[slot] = -1
        work = int(rng.integers(1, 4 if short else 30))
        tasks.append((int(rng.choice([COMPUTE, VECTOR])), work, 0, sorted(set(deps))))
        last = opening + len(tasks)
        used = {slot: last if task < 0 else task for slot, task in used.items()}
        if rng.random() < 0.5:
            tasks.append((STORE, int(rng.integers(1, 9)), 5, [last]))
            waiting.append(opening + len(tasks))
    return [*tasks, (FENCE, 0, 0, [*waiting, last])]


def shifted(segment, by):
    return [(kind, cycles, tail, [d + by for d in deps]) for kind, cycles, tail, deps in segment]


def random_step(rng):
    """Segments after an opening fence, some of them repeated."""
    tasks, earlier = [(FENCE, 0, 0, [])], []
    for _ in range(int(rng.integers(1, 7))):
        opening = len(tasks) - 1
        if earlier and rng.random() < 0.5:
            start, segment = earlier[int(rng.integers(len(earlier)))]
            segment = shifted(segment, opening - start)
        else:
            segment = random_segment(rng, opening)
            earlier.append((opening, segment))
        tasks += segment
    return tasks


def agree(tasks, capacity):
    fast, slow = (engine.run(build(tasks), capacity, name) for name in engine.ENGINES)
    for ours, specified in zip(fast[:3], slow[:3], strict=True):
        np.testing.assert_array_equal(ours, specified)


@pytest.mark.parametrize("block", range(4))
def test_segments_agree_with_the_specification(block):
    rng = np.random.default_rng(block)
    for _ in range(150):
        capacity = np.array([1, 1, 1, *rng.integers(1, 4, size=2)])
        agree(random_step(rng), capacity)


@pytest.mark.parametrize("block", range(4))
def test_segments_that_are_not_closed_agree_with_the_specification(block):
    rng = np.random.default_rng(100 + block)
    for _ in range(150):
        tasks = random_step(rng)
        i = int(rng.integers(1, len(tasks)))
        kind, cycles, tail, deps = tasks[i]
        damage = int(rng.integers(3))
        if damage == 0:  # waits for nothing, or for something long ago
            deps = sorted(rng.choice(i, size=int(rng.integers(0, 2)), replace=False).tolist())
        elif damage == 1 and kind == FENCE:  # does not wait for all
            deps = deps[:-1]
        elif kind != FENCE:  # takes no time
            cycles = 0
        tasks[i] = (kind, cycles, tail, deps)
        agree(tasks, np.array([1, *rng.integers(1, 3, size=4)]))


def in_order_alone(tasks, capacity):
    """Whether one segment without its fences (first and last row) was served in program order."""
    program = build(tasks)
    n = len(tasks)
    times = [np.zeros(n, np.int64) for _ in range(3)]
    columns = (program.kind, program.cycles, program.tail, program.dep_ptr, program.dep_idx, capacity, *times)
    servers = np.zeros(capacity[3] + capacity[4], np.int64)
    return (
        _segment_kernels.in_order(1, n - 1, 0, *columns, np.zeros((3, n), np.int32), servers)
        != _segment_kernels.OUT_OF_ORDER
    )


def test_both_ways_through_a_segment_are_taken():
    rng, capacity = np.random.default_rng(0), np.array([1, 1, 1, 2, 1])
    taken = [in_order_alone([(FENCE, 0, 0, []), *random_segment(rng, 0)], capacity) for _ in range(200)]
    assert 0.1 < np.mean(taken) < 0.95


def test_a_load_that_overtakes_another_is_out_of_order():
    # Task 3 waits for the work (20 cycles), task 4 for the fence only: it is loaded first.
    tasks = [(FENCE, 0, 0, []), (LOAD, 4, 5, [0]), (COMPUTE, 20, 0, [0, 1]), (LOAD, 4, 5, [2]), (LOAD, 4, 5, [0]),
             (COMPUTE, 1, 0, [2, 3, 4]), (FENCE, 0, 0, [5])]  # fmt: skip
    capacity = np.array([1, 1, 1, 2, 1])
    assert not in_order_alone(tasks, capacity)
    assert engine.run(build(tasks), capacity).start.tolist() == [0, 0, 9, 29, 0, 38, 39]
    agree(tasks, capacity)


def test_equal_segments_are_found_and_others_are_not():
    rng = np.random.default_rng(3)
    segment = random_segment(rng, 0)
    size, capacity = len(segment), np.array([1, 1, 1, 2, 1])
    tasks = [(FENCE, 0, 0, []), *segment, *shifted(segment, size), *shifted(segment, 2 * size)]
    agree(tasks, capacity)
    program = build(tasks)
    columns = (program.kind, program.cycles, program.tail, program.dep_ptr, program.dep_idx)
    table = np.full((9, 2), -1)
    sources = [_segment_kernels.seen(1 + k * size, 1 + (k + 1) * size, *columns, table) for k in range(3)]
    assert sources == [-1, 1, 1]
    program.tail[1 + 2 * size] += 1
    assert _segment_kernels.seen(1 + 2 * size, 1 + 3 * size, *columns, table) == -1


def test_a_step_has_the_times_of_the_event_loop():
    hw = npu.load("edge-16x16")
    graph = read(catalogue.find("workloads", "resnet18"))
    program = lower(graph, catalogue.load_dataflow("dense-os"), hw, catalogue.load_dataflow).program
    n, capacity = program.kind.size, engine.unit_capacity(hw)
    times = [np.empty(n, np.int64) for _ in range(3)]
    columns = (program.kind, program.cycles, program.tail, program.dep_ptr, program.dep_idx, capacity, *times)
    assert _kernels.events(0, n, 0, *columns, None) == n
    for ours, one_by_one in zip(engine.run(program, capacity)[:3], times, strict=True):
        np.testing.assert_array_equal(ours, one_by_one)
