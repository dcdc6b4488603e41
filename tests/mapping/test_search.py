"""The mapping search against every tiling there is, on small problems and machines; its kernel against the engine."""

import itertools

import numpy as np
import pytest
from mapping_cases import every_tiling, random_problem

from npusim import npu
from npusim.mapping import lower, search
from npusim.mapping.candidates import described, fitting


def engine_cycles(problem, tiling, dataflow, hw):
    """Cycles of the whole path: program of tasks, fast engine."""
    return lower._cycles_alone(lower._map(problem, tiling, dataflow, hw, None), hw)


@pytest.fixture
def edge():
    return npu.load("edge-16x16")


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_gives_the_cycles_of_the_engine_and_bounds_are_below(seed):
    rng = np.random.default_rng(seed)
    for _ in range(8):
        problem, dataflow, hw = random_problem(rng)
        fits = fitting(problem, hw)
        chosen = rng.permutation(fits.g.size)[:12]
        found, swap = fits.take(chosen), rng.integers(0, 2, chosen.size) > 0
        classes = search.tile_classes(problem, dataflow, hw, found)
        everything = np.zeros(swap.size, np.int64)
        cycles, moved = search.simulate(problem, hw, found, swap, classes.busy, everything, 10**9)
        bounds = search.limits(problem, hw, found, classes.total_cycles)[1]
        for i in range(swap.size):
            tiling = found.tiling(i, swap[i])
            mapped = lower._map(problem, tiling, dataflow, hw, None)
            assert cycles[i] == lower._cycles_alone(mapped, hw), tiling
            burst = hw.dram.burst_bytes
            assert moved[i] == (-(-mapped.tasks[:, lower._kernels.BYTES] // burst) * burst).sum(), tiling
            assert bounds[int(swap[i]), i] <= cycles[i], tiling


@pytest.mark.parametrize("seed", range(6))
def test_no_tiling_is_more_than_one_percent_better(seed):
    rng = np.random.default_rng(100 + seed)
    for _ in range(3):
        problem, dataflow, hw = random_problem(rng)
        found, swap = every_tiling(problem, hw)
        classes = search.tile_classes(problem, dataflow, hw, found)
        cycles, _ = search.simulate(problem, hw, found, swap, classes.busy, np.zeros(swap.size, np.int64), 10**12)
        best = search.best(problem, dataflow, hw)
        assert engine_cycles(problem, best, dataflow, hw) <= 1.01 * cycles.min(), (problem, dataflow.name, best)


def test_every_tiling_is_every_tiling(edge):
    rng = np.random.default_rng(0)
    problem, _, _ = random_problem(rng)
    found, swap = every_tiling(problem, edge.replace({"buffers.b.bytes": "1MiB"}))
    blocks = problem.m * problem.c + problem.groups - 1
    assert swap.size == 2 * blocks * problem.n * problem.p * problem.q
    assert len(set(zip(*(column.tolist() for column in found[:6]), swap.tolist(), strict=True))) == swap.size


def test_a_tiling_that_cannot_win_is_not_simulated(edge):
    problem, dataflow, _ = random_problem(np.random.default_rng(1))
    found = described(problem, np.array(list(itertools.product([1], [1, 2], [1], [1], [1], [1]))))
    classes = search.tile_classes(problem, dataflow, edge, found)
    swap = np.zeros(2, bool)
    cycles, _ = search.simulate(problem, edge, found, swap, classes.busy, np.array([0, 10**9]), 10**9)
    assert cycles[0] > 0 and cycles[1] == -1
    assert (search.simulate(problem, edge, found, swap, classes.busy, np.zeros(2, np.int64), 0)[0] == -1).all()


def test_machines_that_differ_in_sizes_of_buffers_share_searches():
    problem, flow, hw = random_problem(np.random.default_rng(5))
    machines = [hw.replace({"buffers.b.bytes": hw.buffers.b.bytes * k}) for k in (1, 2, 64, 128)]
    found = []
    for machine in machines:
        search._best.cache_clear()
        found.append(search.best(problem, flow, machine))
    search._best.cache_clear()
    assert [search.best(problem, flow, machine) for machine in machines] == found
    # Whatever fits the third fits the fourth.
    assert search._best.cache_info().hits >= 1


@pytest.mark.parametrize("seed", range(3))
def test_whole_tiles_are_moved_once(edge, seed):
    problem, _, _ = random_problem(np.random.default_rng(seed))
    whole = described(problem, np.array([[1, problem.m, problem.c, problem.n, problem.p, problem.q]]))
    computed = problem.taps > 0
    expected = [problem.groups * computed, problem.groups * computed, problem.groups]
    assert search.transfers(problem, edge, whole)[:, :, 0].tolist() == [expected, expected]
