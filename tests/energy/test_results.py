"""Conservation laws of energy, on whole simulations and on the files that they write."""

from __future__ import annotations

import io

import pandas as pd
import pytest

import npusim
from npusim import saved
from npusim.energy import account


@pytest.fixture(scope="module", params=[("tiny-cnn", "dense-os"), ("resnet18-swu", "reduction-spatial")], ids=str)
def result(request):
    workload, dataflow = request.param
    return npusim.simulate(workload, dataflow=dataflow, hardware="edge-16x16")


def test_components_sum_to_the_energy_of_every_operation(result):
    columns = [f"{name}_pj" for name in account.COMPONENTS]
    assert result.layers[columns].sum(axis=1).to_numpy() == pytest.approx(result.layers.energy_pj.to_numpy(), rel=1e-12)
    assert result.components == account.COMPONENTS


def test_actions_sum_to_components_and_phases(result):
    actions = result.actions
    by_component = actions.groupby("component").pj.sum()
    for name in account.COMPONENTS:
        assert by_component.get(name, 0.0) == pytest.approx(result.phases.at["step", f"{name}_pj"], rel=1e-12)
    by_phase = actions.groupby("phase").pj.sum()
    for phase in by_phase.index:
        assert by_phase[phase] == pytest.approx(result.phases.at[phase, "energy_pj"], rel=1e-12)


def test_every_unit_of_work_is_in_the_actions_once_per_component(result):
    """All counted work that has a price appears, as often as it has components, and nothing else does."""
    actions = result.actions
    for work, rows in actions.groupby("work"):
        for _, part in rows.groupby("component"):
            names = part.action.nunique()
            assert part["count"].sum() == names * result.layers[work].sum()
            assert names == 1 or work == "cycles"
    priced = {price.work for price in result.facts.prices.actions if price.pj}
    assert set(actions.work) == {work for work in priced if result.layers[work].any()}


def test_energy_csv_holds_the_actions(result):
    table = pd.read_csv(io.StringIO(saved.files(result)["energy.csv"]))
    assert list(table.columns[:2]) == ["phase", "name"] and len(table) == len(result.layers)
    actions = result.actions.assign(column=result.actions.component + "." + result.actions.action)
    assert set(table.columns[2:-1]) == set(actions.column) and table.columns[-1] == saved.LOW
    sums = actions.groupby("column").pj.sum()
    assert table[sums.index].sum().to_numpy() == pytest.approx(sums.to_numpy(), rel=1e-5)
    assert table.drop(columns=["phase", "name", saved.LOW]).sum(axis=1).to_numpy() == pytest.approx(
        result.layers.energy_pj.to_numpy(), rel=1e-5
    )


def test_energy_csv_of_several_runs_names_them(result):
    both = result.compare(npusim.simulate("tiny-cnn", "mcu-8x8", method="instance-filtering"))
    table = pd.read_csv(io.StringIO(saved.files(both)["energy.csv"]))
    assert list(table.columns[:3]) == ["run", "phase", "name"] and {"part", "share"} <= set(table.columns)
    assert table.run.value_counts().to_dict() == {run.label: len(run.layers) for run in both.runs}


def test_low_confidence_is_named(result):
    assert result.facts.prices.doubtful == ["index", "gather", "clock", "sram_wires", "dram_access", "leakage"]
    assert (
        "low confidence: index, gather, clock, sram wires, dram access, leakage" in result.plot.energy().get_supxlabel()
    )


def test_tables_with_energy_say_what_is_priced_with_low_confidence(result):
    files = saved.files(result)
    for name in ("layers.csv", "phases.csv", "energy.csv"):
        column = pd.read_csv(io.StringIO(files[name])).low_confidence
        assert set(column) == {" ".join(result.facts.prices.doubtful)}
        assert "dram_access" in column[0] and "mac" not in column[0].split()
    assert "low_confidence" not in files["memory.csv"]


def test_a_rule_that_prices_a_buffer_is_named():
    small = npusim.simulate("tiny-cnn", "mcu-8x8")
    assert "; by a scaling rule: buffer mask" in small.plot.energy().get_supxlabel().replace("\n", " ")
    assert "extrapolated by the power law of the two nearest points, as chosen" in str(
        small.manifest["energy"]["notes"]
    )
