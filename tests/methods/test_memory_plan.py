"""Lifetimes, peaks, in-place and interleaved updates, views, limits: computed by hand on small steps."""

import pytest
from method_nets import machine, small, workload

from npusim import memory, method, rewrite
from npusim.errors import CapacityError
from npusim.method import MemoryPolicy
from npusim.synthesis import from_layers


def two_layers(optimizer="sgd"):
    """x 1x4 -> fc1 (8) -> relu -> fc2 (2): weights 32 + 16, x 4, y1 8, r 8, y2 2, loss 2."""
    layers = [
        {"name": "input", "kind": "input", "shape": (1, 4)},
        {"name": "fc1", "kind": "linear", "out": 8},
        {"name": "relu", "kind": "activation"},
        {"name": "fc2", "kind": "linear", "out": 2},
    ]
    return from_layers(layers, "two", optimizer)


def byte(kind):
    return 8


def test_lifetimes_by_hand():
    """ops: 0 fc1, 1 relu, 2 fc2, 3 loss | 4 loss', 5 fc2 dX, 6 fc2 dW, 7 relu', 8 fc1 dW | 9, 10 updates."""
    plan = memory.plan(two_layers(), byte)
    lives = {life.tensor: (life.group, life.first, life.last) for life in plan.lifetimes}
    assert lives["input"] == ("saved", 0, 8)
    assert lives["fc1:y"] == ("workspace", 0, 1)
    assert lives["relu:y"] == ("saved", 1, 7)
    assert lives["fc2.weight.grad"] == ("weight gradients", 6, 10)
    assert lives["fc1.weight"] == ("weights", 0, 10)


def test_peak_by_hand():
    """In op 8: weights 48, input 4, relu gradient 8 (dY), dW of both layers 16 + 32: 108 bytes."""
    plan = memory.plan(two_layers(), byte)
    assert plan.peak_bytes == 48 + 4 + 8 + 16 + 32
    assert plan.training_bytes == 60
    assert plan.at_peak()["weight gradients"] == 48
    assert plan.peaks()["update"] == 48 + 48
    assert plan.timeline().shape == (11, len(memory.GROUPS))


def test_interleaved_updates_free_gradients():
    """fc2's dW (16 bytes) is gone before fc1's comes: the peak falls by 16."""
    graph = two_layers()
    before, after = memory.plan(graph, byte), memory.plan(rewrite.interleaved(graph), byte)
    assert before.peak_bytes - after.peak_bytes == 16
    assert [op.phase for op in rewrite.interleaved(graph).ops].index("update") == 7


def test_interleaving_keeps_the_weight_until_it_was_read():
    graph = rewrite.interleaved(small("adam"))
    for i, op in enumerate(graph.ops):
        if op.phase == "update":
            later = graph.ops[i + 1 :]
            assert not any(op.inputs[0] in other.inputs for other in later if other.phase != "update")


def test_state_lives_all_the_time():
    plan = memory.plan(two_layers("adam"), byte)
    assert plan.timeline()[:, memory.GROUPS.index("state")].tolist() == [96] * 11


def test_in_place_activation():
    """relu may write over fc1's output, which nobody reads again: op 1 has 8 bytes less."""
    graph = two_layers()
    before = memory.plan(graph, byte).timeline().sum(axis=1)
    after = memory.plan(graph, byte, MemoryPolicy(in_place=True)).timeline().sum(axis=1)
    assert before[1] - after[1] == 8
    assert (after <= before).all()


def test_views_keep_only_their_part():
    """fc2 with 3 of 8 input channels: relu:y is needed whole until relu', so a mask for relu frees it."""
    graph = rewrite.select_inputs(rewrite.sign_masks(two_layers()), {"fc2.weight": 3})
    lives = {life.tensor: life for life in memory.plan(graph, byte).lifetimes}
    assert (lives["relu:y"].first, lives["relu:y"].last) == (1, 2)
    assert (lives["relu:y[:3]"].first, lives["relu:y[:3]"].last, lives["relu:y[:3]"].bytes) == (3, 6, 3)
    assert "fc2.weight[:,:3]" not in lives
    assert lives["fc2.weight.grad"].bytes == 6


def test_masks_take_one_bit():
    plan = memory.plan(rewrite.sign_masks(two_layers()), machine().precision.bits)
    lives = {life.tensor: life for life in plan.lifetimes}
    assert (lives["relu:y/range"].group, lives["relu:y/range"].bytes) == ("masks", 1)


def test_time_steps_multiply_what_is_saved():
    graph = two_layers()
    one = memory.plan(graph, byte).timeline()
    four = memory.plan(graph, byte, MemoryPolicy(time_steps=4)).timeline()
    saved = memory.GROUPS.index("saved")
    assert (four[:, saved] == 4 * one[:, saved]).all()


def test_nothing_is_lost():
    """Every tensor that an operation touches is alive then."""
    graph = workload("mobilenetv2")
    lives = {life.tensor: life for life in memory.plan(graph, machine().precision.bits).lifetimes}
    for i, op in enumerate(graph.ops):
        for name in (*op.inputs, *op.outputs):
            assert lives[name].first <= i <= lives[name].last


def test_a_limit_names_the_tensor():
    plan = memory.plan(two_layers(), byte)
    plan.check(108)
    with pytest.raises(CapacityError) as caught:
        plan.check(100, "the board")
    assert str(caught.value) == (
        "step 'two' needs 108 bytes, the board has 100: fc1:grad_weight goes beyond it when 'fc1.weight.grad' (32 "
        "bytes, weight gradients) is added to 76 bytes alive; raise the limit, or let tensors spill"
    )


def test_reordering_and_masks_shrink_mcunet():
    """MCUNetV3's own order of savings: full > sparse > sparse with reordered updates."""
    graph = workload("mcunet-5fps")
    found = [
        memory.of_plan(plan, machine("mcu-8x8")).training_bytes
        for plan in (
            method.apply("dense", graph), method.apply("mcunetv3", graph, scheme="100KB", reorder=0),
            method.apply("mcunetv3", graph, scheme="100KB"),
        )
    ]  # fmt: skip
    assert found[0] > found[1] > found[2]


def test_timeline_figure():
    from npusim import plot
    from npusim.memory_plot import timeline

    figure = timeline(memory.plan(small(), machine().precision.bits), limit_bytes=100_000)
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} >= {"weights", "saved", "limit"}
    assert plot.pngs({"memory": figure})["memory"][:4] == b"\x89PNG"
