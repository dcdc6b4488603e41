"""The crossbar experiment: stored tables are what the code gives, and say what the papers say in kind."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).parents[2] / "experiments" / "crossbar_tasks"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("crossbar_tasks_run", HERE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mask_memory(experiment):
    table = experiment.masks()
    pd.testing.assert_frame_equal(table, pd.read_csv(HERE / "masks.csv"), rtol=1e-4)
    # One bit per 128 weights of whole columns: ResNet-18 has few broken ones.
    share = table.set_index(["network", "rows"]).xbm_share
    assert 1 / 128 <= share["resnet18", 128] < 1.02 / 128
    assert (share > [1 / rows for _, rows in share.index]).all()


def test_tasks(experiment):
    table = experiment.tasks()
    pd.testing.assert_frame_equal(table, pd.read_csv(HERE / "expected.csv"), rtol=1e-4, check_dtype=False)
    rows = table.set_index("method")
    assert rows.writes_per_cell["piggyback"] == 1
    # Only the classifier of 512 x 1000 weights is written: 4 cells each.
    assert rows.arrival_cell_writes["xbm"] == rows.arrival_cell_writes["xma"] == 512 * 1000 * 4
    order = ["xbm", "xma2:pes=0.1", "xma2:pes=0.5", "piggyback"]
    assert rows.arrival_energy_mj[order].is_monotonic_increasing
    assert rows.inference_energy_mj.max() < 1.01 * rows.inference_energy_mj.min()


def test_training(experiment):
    """A trained cell is written once per step, so the first is worn after as many steps as it survives writes."""
    table = experiment.training()
    pd.testing.assert_frame_equal(table, pd.read_csv(HERE / "training.csv"), rtol=1e-4, check_dtype=False)
    rows = table.set_index("method")
    assert rows.writes_per_cell["dense"] == rows.writes_per_cell["piggyback"] == 1
    assert (rows.steps_to_wear_out == 10**8).all()
    # Forward cells and transposed copies, of 512 x 1000 classifier weights.
    assert rows.cell_writes["xbm"] == 2 * 512 * 1000 * 4


def test_break_even_is_where_the_ratio_holds(experiment):
    table = pd.read_csv(HERE / "expected.csv")
    at = experiment.break_even(table, "xbm", 1.5)
    rows = table.set_index("method")
    spent = rows.inference_energy_mj + rows.arrival_energy_mj / at
    assert spent["piggyback"] / spent["xbm"] == pytest.approx(1.5)
