"""`objective` and `mapping` as keys of a sweep: rows are those of simulate with the same choice."""

from dataclasses import replace

import pytest
from steps import small_step

from npusim import npu, trace
from npusim.errors import ConfigError
from npusim.mapping import choice as choices
from npusim.simulation import simulate
from npusim.sweep import sweep

STEP = {"buffers.a.bytes": 64 * 1024}


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """A step's file, and a mapping file that gives every product tiles of a quarter of its rows and single channels."""
    folder = tmp_path_factory.mktemp("mapped")
    trace.write(small_step(density=None), folder / "step.npz")
    plans = simulate(trace.read(folder / "step.npz"), npu.load("edge-16x16").replace(STEP)).lowered.plans
    cut = [replace(p, tilings=tuple(replace(t, g=1, m=-(-t.m // 4), c=1) for t in p.tilings)) for p in plans]
    (folder / "searched.toml").write_text(choices.text(plans))
    (folder / "fixed.toml").write_text(choices.text(cut))
    return folder


def points(step, **grid):
    description = {"name": "mapped", "fixed": {"workload": str(step / "step.npz"), **STEP}, "grid": grid}
    return sweep(description, step / "store.sqlite", workers=1).frame()


def alone(step, objective, mapping=None):
    chosen = choices.choice(objective, mapping)
    return simulate(trace.read(step / "step.npz"), npu.load("edge-16x16").replace(STEP), choice=chosen)


def test_objectives(step):
    table = points(step, objective=["cycles", "energy", "edp"]).set_index("objective")
    for objective, row in table.iterrows():
        run = alone(step, objective)
        assert row.cycles == run.cycles.sum()
        assert row.energy_pj == pytest.approx(run.energy.total_pj, rel=1e-12)
    assert table.cycles["cycles"] == table.cycles.min()
    assert table.energy_pj["energy"] < table.energy_pj["cycles"]


def test_mapping_files(step):
    files = [str(step / "searched.toml"), str(step / "fixed.toml")]
    table = points(step, mapping=files).set_index("mapping")
    searched, fixed = table.cycles[files]
    assert fixed > searched
    assert fixed == alone(step, "cycles", files[1]).cycles.sum()
    assert searched == alone(step, "cycles").cycles.sum()


def test_mistakes_are_refused(step):
    (step / "wrong.toml").write_text((step / "fixed.toml").read_text().replace('op = "', 'op = "no ', 1))
    with pytest.raises(ConfigError, match="no such product in step"):
        points(step, mapping=[str(step / "wrong.toml")])
    with pytest.raises(ConfigError, match="objective 'energie' is unknown"):
        points(step, objective=["energie"])
