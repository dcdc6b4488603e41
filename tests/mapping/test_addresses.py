"""Where tiles lie in DRAM, against addresses enumerated element by element; steps on command-level memory."""

import numpy as np
import pytest
from examples import layer_step, random_conv, random_mask, update_step
from test_lowering import DATAFLOWS, SMALL, _any_size_table

from npusim import catalogue, npu
from npusim import program as tp
from npusim.errors import ConfigError
from npusim.graph import TAPS, Conv, Gemm
from npusim.mapping import _kernels, addresses
from npusim.mapping.lower import _lower_problem, lower
from npusim.mapping.problem import problems
from npusim.mapping.tiling import tile_extents, tile_starts
from npusim.simulation import simulate

BURST = 32


@pytest.fixture(scope="module")
def small():
    return npu.load("edge-16x16").replace({**SMALL, "energy.table": str(_any_size_table()), "dram.model": "commands"})


def covered(segments):
    """Bytes that segments cover."""
    found = set()
    for address, size, rows, stride in segments.tolist():
        for r in range(rows):
            found |= set(range(address + r * stride, address + r * stride + size))
    return found


def tiles(problem, tiling, *axes):
    """(start, extent) of every tile along the axes, first axis outermost, as the emission numbers them."""
    sizes = [(getattr(problem, a), getattr(tiling, b)) for a, b in axes]
    lists = [list(zip(tile_starts(*size), tile_extents(*size), strict=True)) for size in sizes]
    return [tuple(x[i] for x, i in zip(lists, index, strict=True)) for index in np.ndindex(*map(len, lists))]


def image_bytes(dims, groups, channels, images, rows, columns):
    """Two-byte elements of [N, C, H, W] in a box."""
    _, c, h, w = dims
    return {
        2 * (((n * c + ch) * h + y) * w + x) + b
        for n in images for ch in channels for y in rows for x in columns for b in (0, 1)
    }  # fmt: skip


def read_by(d, axis, outputs, taps, size):
    """Image rows or columns that the outputs read."""
    first = [o * d.stride[axis] - d.padding[axis] for o in outputs]
    return {at + r * d.dilation[axis] for at in first for r in range(taps)} & set(range(size))


@pytest.mark.parametrize("seed", range(12))
def test_pieces_are_the_elements_of_the_tile(small, seed):
    rng = np.random.default_rng(seed)
    d = random_conv(rng)
    phase = ("forward", "grad_weight")[seed % 2]
    op = layer_step(d, phases=(phase,)).ops[0]
    (problem,) = problems(op)
    flow = catalogue.load_dataflow("dense-os")
    mapped = _lower_problem(problem, flow, small, None)
    pieces = addresses.matrix(problem, mapped.tiling, mapped.tasks, small, mapped.loaded)
    t = mapped.tiling
    pixels = [("n", "n"), ("p", "p"), ("q", "q")]
    b_axes = ([("groups", "g"), ("c", "c"), *pixels] if problem.role == TAPS
              else [("groups", "g"), *pixels, ("c", "c")])  # fmt: skip
    a_axes = [("groups", "g"), ("m", "m"), *(pixels if problem.role == TAPS else [("c", "c")])]
    boxes = {tp.BUFFER_A: tiles(problem, t, *a_axes), tp.BUFFER_B: tiles(problem, t, *b_axes)}
    for i, task in enumerate(mapped.tasks):
        buffer, tile = task[_kernels.BUFFER], task[_kernels.TILE]
        if task[_kernels.KIND] != tp.LOAD:
            continue
        mine = slice(pieces.first[i], pieces.first[i] + pieces.pieces[i])
        got = covered(pieces.segments[mine])
        assert pieces.bytes[i] >= len({a // BURST for a in got}) * BURST
        box = dict(zip([a for a, _ in (a_axes if buffer == tp.BUFFER_A else b_axes)], boxes[buffer][tile], strict=True))
        span = {axis: range(start, start + extent) for axis, (start, extent) in box.items()}
        if buffer == tp.BUFFER_A and problem.role != TAPS:
            width = problem.c * problem.taps
            rows = [g * problem.m + m for g in span["groups"] for m in span["m"]]
            columns = [c * problem.taps + s for c in span["c"] for s in range(problem.taps)]
            want = {2 * (r * width + x) + b for r in rows for x in columns for b in (0, 1)}
            assert got == want
        elif buffer == tp.BUFFER_A:
            channels = [g * problem.m + m for g in span["groups"] for m in span["m"]]
            assert got == image_bytes((d.n, d.k, d.p, d.q), 1, channels, span["n"], span["p"], span["q"])
        else:
            channels = [g * problem.c + c for g in span["groups"] for c in span["c"]]
            rows, columns = read_by(d, 0, span["p"], d.r, d.h), read_by(d, 1, span["q"], d.s, d.w)
            need = image_bytes((d.n, d.c, d.h, d.w), 1, channels, span["n"], rows, columns)
            assert need <= got
            if d.stride == (1, 1) and d.dilation == (1, 1):
                assert got == need


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("seed", range(3))
def test_random_layers_keep_every_law_with_commands(small, dataflow, seed):
    # simulate() raises when a law or a bound is broken: every burst is served once, bus time is within the cycles.
    rng = np.random.default_rng(seed)
    dims = random_conv(rng)
    step = layer_step(dims, random_mask(rng, dims))
    fast, slow = simulate(step, small, dataflow), simulate(step, small, dataflow, engine_name="simpy")
    for one, other in zip(fast.schedule, slow.schedule, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (fast.units.sum(axis=1) == [fast.schedule.cycles * n for n in (1, 1, 1, 2, 1)]).all()


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_updates_read_and_write_every_tensor_where_it_lies(small, kind):
    step = update_step(5000, kind)
    run = simulate(step, small)
    first = run.lowered.program
    loads, stores = (covered(first.segments[np.flatnonzero(np.repeat(first.kind, first.pieces) == k)])
                     for k in (tp.LOAD, tp.STORE))  # fmt: skip
    state = {"sgd": 0, "momentum": 1, "adam": 2}[kind]
    assert len(loads) == 2 * 5000 * 2 + state * 5000 * 4
    assert len(stores) == 5000 * 2 + state * 5000 * 4
    assert stores < loads or kind == "sgd"


def test_matmul_operands_lie_apart(small):
    run = simulate(layer_step(Gemm(2, 20, 30, 40), phases=("forward",), kind="matmul"), small)
    program = run.lowered.program
    assert covered(program.segments[:1]) and run.dram_commands.RD.sum() > 0


def test_ideal_memory_has_no_addresses():
    flow = catalogue.load_dataflow("dense-os")
    program = lower(layer_step(Conv(1, 8, 8, 8, 8)), flow, npu.load("edge-16x16"), None).program
    assert program.first.size == program.segments.size == 0


def test_burst_and_device_must_agree(small):
    with pytest.raises(ConfigError, match=r"dram.burst_bytes = 64.*lpddr4-3200"):
        simulate(layer_step(Conv(1, 8, 8, 8, 8)), small.replace(burst_bytes=64))


def test_commands_need_a_device():
    with pytest.raises(ConfigError, match="model = 'commands' needs a table commands"):
        npu.load("mcu-8x8").replace({"dram.model": "commands"})


def test_energy_follows_the_commands(small):
    run = simulate(layer_step(Conv(1, 8, 14, 14, 16, 3, 3)), npu.load("edge-16x16").replace({"dram.model": "commands"}))
    spent = dict(zip(run.energy.components, run.energy.pj.sum(axis=0), strict=True))
    assert spent["dram_access"] > 0 and spent["dram_activate"] > 0 and spent["dram_background"] > 0
    assert any("low confidence" in line for line in run.energy.provenance())
