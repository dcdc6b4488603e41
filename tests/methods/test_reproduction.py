"""The reproduction experiment: its recomputed numbers are the stored ones and within what their authors print."""

import sys
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).parents[2] / "experiments" / "reproduce_methods"


@pytest.fixture(scope="module")
def experiment():
    import importlib.util

    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location("reproduce_methods_run", HERE / "run.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(HERE))
    return module


def test_recomputed_numbers(experiment):
    table = pd.DataFrame(experiment.recomputed())
    assert table.difference.abs().max() <= 0.005
    stored = pd.read_csv(HERE / "expected.csv")
    pd.testing.assert_frame_equal(table, stored, rtol=1e-6)


def test_measured_layers_keep_their_order():
    """Simulated speedups of the seven layers go up with the measured ones (rank correlation above 0.6)."""
    table = pd.read_csv(HERE / "measured.csv")
    for r in (2, 4):
        part = table[table.r == r]
        for board in ("jetson_cpu", "jetson_gpu"):
            assert part.simulated.rank().corr(part[board].rank()) > 0.6
        assert (part.simulated < part.mac_ratio).all()


def test_one_measured_layer_is_simulated_as_stored(experiment):
    from npusim import method, npu

    table = pd.read_csv(HERE / "measured.csv").set_index(["layer", "r"])
    graph = experiment.one_layer(64, 56, 56)
    machine = npu.load(experiment.MACHINE)
    step = method.apply("gradient-filtering", graph, r=2, layers=0).parts[0].graph
    cycles = [experiment.backward(g, machine).schedule.cycles for g in (graph, step)]
    ratio = cycles[0] / cycles[1]
    assert ratio == pytest.approx(table.simulated["64@56x56", 2], rel=1e-4)
