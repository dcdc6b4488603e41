"""Objectives, and tilings fixed by hand: files, mistakes, round trips."""

from dataclasses import replace

import pytest

from npusim import npu
from npusim.errors import CapacityError, ConfigError
from npusim.graph import Conv
from npusim.mapping import choice as choices
from npusim.mapping.choice import Choice, choice
from npusim.mapping.tiling import Tiling
from npusim.program import digest
from npusim.simulation import simulate

from examples import layer_step  # isort: skip

DIMS = Conv(1, 32, 14, 14, 48, 3, 3, padding=(1, 1))
ENTRY = """
[[mapping]]
op = "layer"
phase = "forward"
m = 16
c = 8
n = 1
p = 7
q = 14
order = "m inner"
"""


@pytest.fixture
def edge():
    return npu.load("edge-16x16")


def written(tmp_path, text):
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    return path


def test_a_fixed_tiling_is_used_and_others_are_searched(edge, tmp_path):
    step = layer_step(DIMS)
    fixed = simulate(step, edge, choice=choice("cycles", written(tmp_path, ENTRY)))
    free = simulate(step, edge)
    assert fixed.lowered.plans[0].tilings == (Tiling(1, 16, 8, 1, 7, 14, True),)
    assert [p.tilings for p in fixed.lowered.plans[1:]] == [p.tilings for p in free.lowered.plans[1:]]
    assert fixed.cycles[0] > free.cycles[0]


@pytest.mark.parametrize("dataflow", ["dense-os", "dense-ws", "hybrid"])
def test_a_printed_mapping_gives_the_same_program(edge, tmp_path, dataflow):
    step = layer_step(Conv(1, 16, 14, 14, 32, 3, 3, (2, 2), (1, 1)))
    run = simulate(step, edge, "dense-os" if dataflow == "hybrid" else dataflow)
    path = written(tmp_path, choices.text(run.lowered.plans, ["a heading"]))
    again = simulate(step, edge, run.dataflow, choice=choice("energy", path))
    assert digest(again.lowered.program) == digest(run.lowered.program)
    assert choices.text(again.lowered.plans, ["a heading"]) == path.read_text()


def test_operations_of_one_name_and_phase_count_their_parts_on(edge, tmp_path):
    """As the two gradients of a product of activations do."""
    step = layer_step(DIMS)
    small = replace(step.ops[0], dims=Conv(1, 32, 14, 14, 8, 3, 3, padding=(1, 1)))
    step = replace(step, ops=(*step.ops, small))
    run = simulate(step, edge)
    assert run.lowered.plans[0].tilings != run.lowered.plans[-1].tilings
    chosen = choice("energy", written(tmp_path, choices.text(run.lowered.plans)))
    chosen.check(step)
    assert choices.first_parts(step)[-1] == 1
    assert digest(simulate(step, edge, choice=chosen).lowered.program) == digest(run.lowered.program)


def test_a_tiling_of_another_dataflow_is_not_used(edge, tmp_path):
    path = written(tmp_path, ENTRY + 'dataflow = "dense-ws"\n')
    step, chosen = layer_step(DIMS), choice("cycles", path)
    assert simulate(step, edge, choice=chosen).lowered.plans == simulate(step, edge).lowered.plans
    assert simulate(step, edge, "dense-ws", choice=chosen).lowered.plans[0].tilings[0].m == 16


def test_every_mistake_of_a_file_is_listed(edge, tmp_path):
    text = ENTRY.replace("m = 16", "m = 64").replace("c = 8", "c = 40")
    text += ENTRY.replace('"forward"', '"forwrad"') + ENTRY.replace('"layer"', '"layer"\npart = 1')
    text += ENTRY.replace('"forward"', '"grad_input"\ndataflow = "dense-oz"')
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        choice("cycles", path).check(layer_step(DIMS))
    assert str(error.value).splitlines() == [
        f"{path}: 4 problems",
        "  layer:forward: a tile larger than the operation: m = 64 of 48, c = 40 of 32",
        "  layer:forward part 1: the operation has 1 part(s), numbered from 0",
        "  layer:forwrad: no such product in step 'one-layer' (did you mean 'layer:forward'?)",
        "  layer:grad_input: unknown dataflow 'dense-oz' (did you mean 'dense-os'?)",
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        (ENTRY.replace("m = 16", "mm = 16"), r"mapping.0.mm: unknown key \(did you mean 'm'\?\)"),
        (ENTRY.replace('"m inner"', '"inner"'), "mapping.0.order"),
        (ENTRY + ENTRY, "layer:forward part 0 is given twice"),
        ("", "mapping: missing"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        choice("cycles", written(tmp_path, text))


def test_groups_are_joined_only_whole(tmp_path):
    step = layer_step(Conv(1, 8, 6, 6, 8, 3, 3, padding=(1, 1), groups=4))
    text = ENTRY.replace("m = 16", "g = 2\nm = 1").replace("c = 8", "c = 2").replace("p = 7", "p = 6")
    with pytest.raises(
        ConfigError, match=r"g = 2 joins groups, so their rows and channels must be whole: m = 2, c = 2"
    ):
        choice("cycles", written(tmp_path, text.replace("q = 14", "q = 4"))).check(step)


def test_a_tile_that_does_not_fit_names_the_buffer(edge, tmp_path):
    path = written(tmp_path, ENTRY)
    with pytest.raises(
        CapacityError, match=r"given tile g1 m16 c8 .* does not fit edge-16x16: it needs \d+ bytes in buff"
    ):
        simulate(layer_step(DIMS), edge.replace({"buffers.a.bytes": 1024}), choice=choice("cycles", path))


def test_the_objective_is_least_where_it_is_asked_for(edge):
    steps = [layer_step(Conv(1, 64, 14, 14, 96, 3, 3, padding=(1, 1))), layer_step(Conv(1, 48, 28, 28, 24))]
    for step in steps:
        runs = {name: simulate(step, edge, choice=Choice(name)) for name in choices.OBJECTIVES}
        cycles = {name: run.cycles.sum() for name, run in runs.items()}
        energy = {name: run.energy.pj.sum() for name, run in runs.items()}
        assert cycles["cycles"] <= 1.001 * min(cycles.values())
        assert energy["energy"] <= 1.001 * min(energy.values())
        assert energy["edp"] * cycles["edp"] <= 1.01 * min(energy[name] * cycles[name] for name in runs)


def test_an_unknown_objective_is_named():
    with pytest.raises(ConfigError, match=r"objective 'enregy' is unknown \(did you mean 'energy'\?\)"):
        Choice("enregy")


def test_choices_have_digests_of_their_own(tmp_path):
    path = written(tmp_path, ENTRY)
    found = [Choice(), Choice("edp"), choice("cycles", path), choice("edp", path)]
    assert found[0].digest() == "" and len({one.digest() for one in found}) == 4
