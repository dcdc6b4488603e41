"""The step as a table and as text."""

from __future__ import annotations

from dataclasses import replace

from trace_steps import small_step

from npusim.graph import StepGraph
from npusim.trace.show import render, table, totals


def test_table_has_one_row_per_operation():
    step = small_step()
    frame = table(step)
    assert list(frame["phase"]) == ["forward", "grad_weight", "update"]
    # 2*8*8*4*3*3*3 = 13,824 MACs
    assert list(frame["macs"]) == [13_824, 13_824, 0]
    assert frame["update_density"][1] == step.update_masks["c.weight"].density
    assert list(frame["elements"].fillna(0)) == [0, 0, 108]


def test_totals_count_what_the_masks_select():
    step = small_step()
    sums = totals(step)
    assert sums.loc["forward", "selected_macs"] == 13_824 * step.task_masks["c.weight"].density
    assert sums.loc["grad_weight", "selected_macs"] == 13_824 * step.update_masks["c.weight"].density
    assert list(sums.index) == ["forward", "grad_weight", "update"]


def test_text_shows_no_control_characters():
    step = small_step({"note": "\x1b[2J\u202eevil\n"})
    ops = (replace(step.ops[0], name="\x1b]0;evil\x07" * 9), *step.ops[1:])
    text = render(StepGraph("a\x1bb", ops, step.tensors, meta=step.meta))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "N2 C3 8x8 K4 3x3 p1" in text and "13.8 k" in text
