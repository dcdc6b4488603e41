"""Lowering and simulation: laws, bounds and engine equality on random layers; hand-computed cases."""

import numpy as np
import pytest
from examples import layer_step, random_conv, random_mask, update_step

from npusim import engine, npu
from npusim.catalogue import load_dataflow
from npusim.counters import COUNTERS
from npusim.errors import CapacityError, ConfigError
from npusim.graph import Conv, Gemm
from npusim.mapping.lower import lower
from npusim.simulation import simulate

DATAFLOWS = ("dense-os", "dense-ws", "dense-is", "selective-row", "channel-skipping", "reduction-spatial")
SMALL = {
    "array.rows": 4, "array.cols": 4, "buffers.a.bytes": 1024, "buffers.b.bytes": 1024,
    "buffers.accumulator.bytes": 2048, "buffers.mask.bytes": 256, "buffers.mask.bytes_per_cycle": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


@pytest.fixture(scope="module")
def small():
    energy = {"energy.table": str(_any_size_table())}
    return npu.load("edge-16x16").replace({**SMALL, **energy})


def _any_size_table():
    """A user's energy table that also prices buffers below the CACTI figures."""
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "any.toml"
    row = "read_pj_per_byte = 1.0\nwrite_pj_per_byte = 1.0\nleakage_mw = 0.0\narea_mm2 = 0.1\n"
    row += "source = 'test'\nconfidence = 'low'\n"
    rows = "".join(f"[sram.buffers.{name}]\n{row}" for name in ("a", "b", "accumulator", "mask"))
    path.write_text(f'base = "generic-28nm"\nname = "any"\n{rows}')
    return path


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("seed", range(6))
def test_random_layers_keep_every_law_on_both_engines(small, dataflow, seed):
    # simulate() raises when a conservation law or a lower bound is broken or the program is unsafe.
    rng = np.random.default_rng(seed)
    dims = random_conv(rng)
    step = layer_step(dims, random_mask(rng, dims))
    hw = small.replace({"array.fold_overlap": bool(seed % 2), "buffers.b.double_buffered": bool(seed % 3)})
    fast, slow = simulate(step, hw, dataflow), simulate(step, hw, dataflow, engine_name="simpy")
    for one, other in zip(fast.schedule, slow.schedule, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_dense_work_does_not_depend_on_the_dataflow(edge, dataflow):
    rng = np.random.default_rng(1)
    dims = Conv(2, 16, 14, 14, 32, 3, 3, padding=(1, 1))
    run = simulate(layer_step(dims, random_mask(rng, dims, 0.3)), edge, dataflow)
    total = run.count("macs_done") + run.count("macs_gated") + run.count("macs_skipped")
    assert total.tolist() == [dims.macs] * 3


@pytest.mark.parametrize("dataflow", DATAFLOWS[3:])
def test_only_selected_elements_are_done_and_written(edge, dataflow):
    rng = np.random.default_rng(2)
    dims = Conv(1, 16, 14, 14, 32, 3, 3, padding=(1, 1))
    mask = random_mask(rng, dims, 0.3)
    run = simulate(layer_step(dims, mask, ("grad_weight",)), edge, dataflow)
    assert run.count("macs_done")[0] == mask.sum() * 14 * 14
    written = run.lowered.program.bytes[run.lowered.program.kind == 1].sum()
    assert mask.sum() * 2 <= written < mask.sum() * 2 + 32 * (run.lowered.program.kind == 1).sum()


def test_one_fold_by_hand(edge):
    # K = 16 rows, 16 input channels of 1x1, T = 64 in two tiles of 4 image rows: a fold each, 32 + 2*16 + 14 = 78.
    # dY and X tiles: 16*32*2 = 1024 bytes = 64 cycles of 16 bytes, latency 80, two read channels:
    #   dY0 bus 0..64 ends 144; X0 64..128, 208; dY1 gets dY0's channel: 144..208, 288; X1: 208..272, 352.
    # Compute 208..286 and 352..430; dW: 512 bytes = 32 cycles, ends 430 + 32 + 80 = 542.
    dims = Conv(1, 16, 8, 8, 16)
    run = simulate(layer_step(dims, phases=("grad_weight",)), edge)
    assert run.array_cycles[0] == 2 * 78
    assert run.load_stall_cycles[0] == 208 + (352 - 286)
    assert run.cycles[0] == 542


def test_unstructured_masks_save_no_cycles_on_output_stationary(edge):
    rng = np.random.default_rng(0)
    dims = Conv(1, 64, 14, 14, 64, 3, 3, padding=(1, 1))
    step = layer_step(dims, random_mask(rng, dims, 0.5), ("grad_weight",))
    dense = simulate(step, edge).array_cycles[0]
    # One live element in 16 makes a row or a channel of nine taps live: P(dead) = 0.5^16 and 0.5^144.
    # More tilings are tried under a mask, and one of them may suit the array a little better.
    for dataflow in ("channel-skipping", "selective-row"):
        assert simulate(step, edge, dataflow).array_cycles[0] >= 0.98 * dense


@pytest.mark.parametrize("dataflow, axis", [("selective-row", 0), ("channel-skipping", 1)])
def test_a_structured_mask_saves_its_share(edge, dataflow, axis):
    dims = Conv(1, 64, 28, 28, 64, 3, 3, padding=(1, 1))
    mask = np.zeros((64, 64, 3, 3), bool)
    mask[(slice(None),) * axis + (slice(0, 64, 4),)] = True
    step = layer_step(dims, mask, ("grad_weight",))
    dense, sparse = simulate(step, edge), simulate(step, edge, dataflow)
    assert sparse.count("macs_gated")[0] == 0
    assert 3.5 < dense.array_cycles[0] / sparse.array_cycles[0] <= 4.0
    assert sparse.count("dram_read_bytes")[0] < dense.count("dram_read_bytes")[0]


def test_an_empty_mask_costs_nothing_but_its_fence(edge):
    dims = Conv(1, 64, 14, 14, 64, 3, 3, padding=(1, 1))
    step = layer_step(dims, np.zeros((64, 64, 3, 3), bool), ("grad_weight",))
    for dataflow in DATAFLOWS[3:]:
        run = simulate(step, edge, dataflow)
        assert run.cycles[0] == 0
        assert run.count("macs_skipped")[0] == dims.macs


@pytest.mark.parametrize("overlap", [False, True])
def test_a_full_mask_on_packed_folds_equals_dense(edge, overlap):
    hw = edge.replace({"array.fold_overlap": overlap})
    dims = Conv(1, 32, 14, 14, 48, 3, 3, padding=(1, 1))
    step = layer_step(dims, np.ones((48, 32, 3, 3), bool), ("grad_weight",))
    dense = simulate(step, hw)
    for dataflow in ("selective-row", "channel-skipping"):
        run = simulate(step, hw, dataflow)
        assert run.array_cycles[0] == dense.array_cycles[0]
        for name in ("macs_done", "dram_write_bytes", "a_read_bytes", "b_read_bytes"):
            assert run.count(name)[0] == dense.count(name)[0], name


def test_forward_grad_input_and_full_masks_fall_back(edge):
    dims = Conv(1, 32, 14, 14, 32, 3, 3, padding=(1, 1), groups=32)
    mask = np.ones((32, 1, 3, 3), bool)
    full = simulate(layer_step(dims, mask), edge, "reduction-spatial")
    assert [p.dataflow for p in full.lowered.plans] == ["dense-os"] * 3
    mask[0, 0, 0, 0] = False
    run = simulate(layer_step(dims, mask), edge, "reduction-spatial")
    assert [p.dataflow for p in run.lowered.plans] == ["dense-os", "dense-os", "reduction-spatial"]


def test_batched_products(edge):
    run = simulate(layer_step(Gemm(3, 20, 30, 40), phases=("forward",), kind="matmul"), edge)
    assert run.count("macs_done")[0] == 3 * 20 * 30 * 40


def test_the_operations_of_a_step_add_up(edge):
    rng = np.random.default_rng(5)
    dims = Conv(1, 16, 14, 14, 32, 3, 3, padding=(1, 1))
    mask = random_mask(rng, dims, 0.3)
    alone = [simulate(layer_step(dims, mask, (phase,)), edge, "reduction-spatial").schedule.cycles
             for phase in ("forward", "grad_input", "grad_weight")]  # fmt: skip
    assert simulate(layer_step(dims, mask), edge, "reduction-spatial").cycles.tolist() == alone


def test_a_masked_update_moves_whole_bursts_of_weights_and_compact_gradients(edge):
    # 1024 weights of 2 bytes in 32-byte bursts of 16: elements 0 and 17 touch two bursts; state (4 bytes): bursts of 8.
    mask = np.zeros((16, 64, 1, 1), bool)
    mask.reshape(-1)[[0, 17]] = True
    step = update_step(1024, "momentum", mask)
    step = type(step)(step.name, (*layer_step(Conv(1, 64, 4, 4, 16), phases=("grad_weight",)).ops, *step.ops),
                      step.tensors, update_masks=step.update_masks)  # fmt: skip
    run = simulate(step, edge, "reduction-spatial")
    assert run.count("vector_lane_ops")[1] == 2 * 2
    # in: 2 bursts of W, 4 bytes of dW (moved as one burst), 2 bursts of state; W and state share buffer a's load.
    assert run.count("dram_read_bytes")[1] == 64 + 64 + 32
    assert run.count("dram_write_bytes")[1] == 64 + 64


def test_a_layer_that_does_not_fit_names_the_buffer(edge):
    hw = edge.replace({"buffers.a.bytes": 16, "buffers.a.bytes_per_cycle": 8})
    step = layer_step(Conv(1, 8, 6, 6, 8, 5, 5), phases=("forward",))
    with pytest.raises(CapacityError) as error:
        simulate(step, hw)
    assert str(error.value) == (
        "layer:forward (N1 C8 6x6 K8 5x5) with dense-os: the smallest tile needs 50 bytes in buffer 'a', but "
        "edge-16x16 has 8 (half of 16 bytes); raise buffers.a.bytes or switch off its double buffering"
    )


def test_a_selective_dataflow_needs_masks(edge):
    with pytest.raises(ConfigError, match="step 'one-layer' has none"):
        simulate(layer_step(Conv(1, 8, 6, 6, 8)), edge, "reduction-spatial")


def test_lowering_is_deterministic_and_counts_are_named(edge):
    from npusim.program import digest

    step = layer_step(Conv(1, 16, 14, 14, 32, 3, 3, padding=(1, 1)))
    one, other = (lower(step, load_dataflow("dense-os"), edge, load_dataflow) for _ in range(2))
    assert digest(one.program) == digest(other.program)
    assert one.counts.shape == (3, len(COUNTERS))
    assert engine.run(one.program, engine.unit_capacity(edge)).cycles > 0


def test_the_time_of_every_unit_adds_up(edge):
    # The hand-computed case above: 542 cycles, loads 4 x 64 and one store of 32 on the bus, latency 80 each.
    units = simulate(layer_step(Conv(1, 16, 8, 8, 16), phases=("grad_weight",)), edge).units
    assert units.sum(axis=1).to_dict() == {"dram": 542, "array": 542, "vector": 542, "dma_read": 1084, "dma_write": 542}
    assert units.loc["array"].to_dict() == {
        "busy": 156, "wait_load": 274, "wait_store": 0, "wait_bus": 0, "latency": 0, "idle": 112,
    }  # fmt: skip
    # X0 waits 64 for dY0 on the bus, nothing else waits.
    assert units.loc["dma_read"].to_dict() == {
        "busy": 256, "wait_load": 0, "wait_store": 0, "wait_bus": 64, "latency": 320, "idle": 444,
    }  # fmt: skip
    assert units.loc["dram", "busy"] == 288


def test_reduction_spatial_needs_registers(edge):
    dims = Conv(1, 8, 6, 6, 8)
    step = layer_step(dims, np.ones((8, 8, 1, 1), bool) & (np.arange(8) % 2 == 0)[:, None, None, None])
    with pytest.raises(ConfigError, match=r"array.pe_registers = 0, but reduction-spatial keeps dY in PE registers"):
        simulate(step, edge.replace({"array.pe_registers": 0}), "reduction-spatial")


def test_products_that_a_method_adds_run_like_forward_ones(edge):
    dims = Gemm(2, 16, 16, 32)
    aux, forward = (simulate(layer_step(dims, phases=(p,), kind="matmul"), edge).cycles for p in ("aux", "forward"))
    assert aux.tolist() == forward.tolist()
