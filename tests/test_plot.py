"""Figures: what they show, that nothing overlaps, and that they can be told apart."""

import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from steps import HOSTILE, small_step

from npusim import api, breakdown, plot
from npusim.comparison import Comparison


@pytest.fixture(scope="module")
def comparison():
    flows = ["dense-os", "selective-row", "channel-skipping", "reduction-spatial"]
    return api.compare(small_step(), dataflows=flows)


@pytest.fixture(scope="module")
def figures(comparison):
    drawn = plot.figures(comparison)
    plot.pngs(drawn)
    return drawn


def test_speedup_bars_are_the_tables_numbers(comparison, figures):
    cells = breakdown.comparison_cells(comparison)
    for axes, column in zip(figures["speedup"].axes, ("speedup", "energy_gain"), strict=True):
        assert len(axes.containers) == 3
        for bars, run in zip(axes.containers, comparison.runs[1:], strict=True):
            expected = [cells[run.label, phase][column] for phase in breakdown.phases_of(comparison)]
            assert [bar.get_height() for bar in bars] == pytest.approx(expected)
        assert any(list(line.get_ydata()) == [1, 1] for line in axes.lines)


@pytest.mark.parametrize("name, column, unit", [("energy", "energy_pj", 1e6), ("cycles", "cycles", 1e3)])
def test_stacks_reach_the_totals(comparison, figures, name, column, unit):
    cells = breakdown.comparison_cells(comparison)
    for axes, phase in zip(figures[name].axes, ("grad_weight", "step"), strict=True):
        tops = [max(bar.get_y() + bar.get_height() for bar in bars) for bars in zip(*axes.containers, strict=True)]
        assert tops == pytest.approx([cells[run.label, phase][column] / unit for run in comparison.runs])


def test_axes_have_names_with_units_and_a_caption(figures):
    assert [axes.get_ylabel() for axes in figures["speedup"].axes] == ["speedup (x)", "energy gain (x)"]
    assert {axes.get_ylabel() for axes in figures["energy"].axes} == {"energy (uJ)"}
    assert {axes.get_ylabel() for axes in figures["cycles"].axes} == {"time (thousand cycles)"}
    assert {axes.get_xlabel() for axes in figures["roofline"].axes} == {"operations per byte of DRAM"}
    assert [axes.get_ylabel() for axes in figures["memory"].axes] == ["alive (KiB)"]
    for name in ("speedup", "energy", "cycles"):
        figure = figures[name]
        caption = figure.get_supxlabel()
        assert caption.startswith("Workload small, one training step, 25.2 % of masked weights updated.\n")
        assert "\nMachine edge-16x16: 16x16 PEs" in caption
        low = "index, gather, clock, sram wires, dram access, leakage"
        assert caption.endswith(f"\nEnergy: generic-28nm, 28 nm, LPDDR4; low confidence: {low}.")


@pytest.mark.parametrize("name", ["speedup", "energy", "cycles"])
def test_legend_title_panels_and_caption_do_not_overlap(figures, name):
    figure = figures[name]
    renderer = FigureCanvasAgg(figure).get_renderer()
    parts = [axes.get_tightbbox(renderer) for axes in figure.axes]
    parts += [legend.get_window_extent(renderer) for legend in figure.legends]
    parts += [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
    for one, other in itertools.combinations(parts, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 1 or down <= 1
    width, height = figure.canvas.get_width_height()
    assert all(part.x0 >= 0 and part.y0 >= 0 and part.x1 <= width and part.y1 <= height for part in parts)


@pytest.mark.parametrize("count", [2, 6, 7, 13])
def test_numbers_over_the_bars_do_not_overlap(comparison, count):
    runs = tuple(replace(comparison.runs[i % 4], label=f"dataflow-{i}") for i in range(count))
    for draw in (plot.speedup, plot.energy, plot.cycles):
        figure = plot.drawn(draw, Comparison(runs))
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in figure.axes:
            boxes = [text.get_window_extent(renderer) for text in axes.texts]
            assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(boxes, 2))
            assert all(box.y1 <= axes.bbox.y1 + 1 for box in boxes)


def test_colours_differ_also_in_grey():
    # Rec. 709 luminance: neighbours in a stack must not look alike without colour.
    weights = (0.2126, 0.7152, 0.0722)
    grey = [sum(w * c for w, c in zip(weights, to_rgb(colour), strict=True)) for colour in plot.PALETTE]
    assert len(set(plot.PALETTE)) == len(plot.PALETTE) >= 7
    assert all(abs(a - b) > 0.05 for a, b in itertools.pairwise(grey))


def test_pictures_are_the_same_twice_and_well_formed(comparison, figures):
    again = plot.figures(comparison)
    first = plot.svgs(figures)
    assert first == plot.svgs(again)
    assert plot.pngs(figures) == plot.pngs(again)
    for svg in first.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg") and "<dc:date>" not in svg
        assert "dense-os<" in svg or "against dense-os" in svg or "Memory of small" in svg


def test_hostile_and_foreign_names_are_drawn_as_text(comparison):
    runs = tuple(
        replace(run, label=f"{run.label} {HOSTILE} 日本", facts=run.facts.model_copy(update={"workload": HOSTILE}))
        for run in comparison.runs
    )
    for svg in plot.svgs(plot.figures(Comparison(runs))).values():
        ElementTree.fromstring(svg)
        assert "<script" not in svg and "\x1b" not in svg


def test_nothing_global_changes(comparison):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot.figures(comparison)
    assert dict(matplotlib.rcParams) == before


def test_very_different_speedups_have_a_logarithmic_axis_and_missing_phases_no_place(comparison):
    base, other = comparison.runs[:2]
    phases = other.phases.drop(index="update")
    phases.loc["forward", ["cycles", "energy_pj"]] = 1
    changed = Comparison((base, replace(other, phases=phases)))
    figure = plot.figures(changed)["speedup"]
    top, bottom = figure.axes
    assert [tick.get_text() for tick in bottom.get_xticklabels()] == [
        "forward", "grad_input", "grad_weight (WGC)", "whole step",
    ]  # fmt: skip
    assert top.get_yscale() == "log" and top.get_ylabel() == "speedup (x), logarithmic"
    assert top.containers[0][0].get_height() == base.phases.cycles["forward"]
    assert top.get_ylim()[0] > 0 and top.get_ylim()[1] > base.phases.cycles["forward"]


@pytest.fixture(scope="module")
def many():
    """Eight runs, more than a group of bars can hold; one is far slower."""
    flows = ["dense-os", "dense-ws", "dense-is", "selective-row", "channel-skipping", "reduction-spatial", "column-set"]
    found = api.compare(small_step(), dataflows=flows)
    slow = found.baseline.hardware.replace({"dram.bandwidth_bytes_per_s": "50MB/s"})
    return Comparison.of(*found.runs, api.simulate(small_step(), slow))


def test_many_runs_have_a_row_each(many):
    figure = plot.drawn(plot.speedup, many)
    cells = breakdown.comparison_cells(many)
    for axes, column in zip(figure.axes, ("speedup", "energy_gain"), strict=True):
        for bars, phase in zip(axes.containers, ("grad_weight", "step"), strict=True):
            expected = [cells[run.label, phase][column] for run in many.runs[1:]]
            assert [bar.get_width() for bar in bars] == pytest.approx(expected)
        assert [list(line.get_xdata()) for line in axes.lines] == [[1, 1]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        plot.broken(run.label) for run in many.runs[1:]
    ]
    assert figure.axes[0].get_xlabel() == "speedup (x), logarithmic"
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        line = axes.transData.transform((1, 0))[0]
        assert not any(box.x0 < line < box.x1 for box in boxes)
