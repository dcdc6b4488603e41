"""Figures of the tables that run.py makes. Colours of Okabe and Ito, with markers or hatches beside them."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from npusim.plot import FAINT, HATCHES, INK, PALETTE, STYLE

MARKERS = "osD^vP*X"
DATAFLOWS = (
    "reduction-window", "reduction-spatial", "element-gather", "column-set", "kernel-packed", "ws-selective",
    "selective-row", "channel-skipping",
)  # fmt: skip
LOOK = {name: ((*PALETTE, INK)[i], MARKERS[i]) for i, name in enumerate(DATAFLOWS)}
CAUSES = (
    ("wanted", "wanted MACs"), ("gated", "gated MACs"), ("preload_cycles", "dY preload"),
    ("load_wait_cycles", "wait for X words"), ("imbalance_cycles", "imbalance"), ("latency_cycles", "adder latency"),
    ("rest", "fill, drain, ragged folds, other"), ("buffer_ports", "buffer ports"), ("dram_loads", "wait for DRAM"),
    ("stores_and_drain", "stores, end of layer"),
)  # fmt: skip
# Column, the published average, label.
GAINS = (("speedup", 2.9, "WGC speedup over dense (x)"), ("energy_gain", 2.5, "WGC energy gain over dense (x)"))
SHORT = {"resnet18-swu": "ResNet-18", "vgg16-bn-swu": "VGG-16-BN", "mobilenetv2-swu": "MobileNetV2"}


def draw(tables: dict[str, pd.DataFrame], out: Path) -> list[str]:
    """Write every figure as PNG and SVG; their names."""
    figures = {
        "speedup_by_density": by_density(tables["density"], "speedup", "WGC speedup over dense"),
        "energy_by_density": by_density(tables["density"], "energy_gain", "WGC energy gain over dense"),
        "recorded": recorded(tables["recorded"]),
        "layers": layers(tables["layers"]),
        "overheads": overheads(tables["overheads"]),
        "machines": machines(tables["machines"]),
        "step": step(tables["step"]),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=130)
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    return list(figures)


def _figure(rows: int, columns: int, size: tuple[float, float], **options):
    with matplotlib.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def _panels(table: pd.DataFrame) -> list[tuple[str, int]]:
    """(network, image size), small images first."""
    found = table[["network", "size"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(found, key=lambda key: (list(SHORT).index(key[0]), key[1]))


def by_density(table: pd.DataFrame, value: str, label: str):
    """One panel per structure, one line per dataflow, dashed: the ideal 1/density."""
    kinds = list(dict.fromkeys(table.structure))
    columns = min(4, len(kinds) + 1)
    rows = -(-(len(kinds) + 1) // columns)
    figure, axes = _figure(rows, columns, (3.4 * columns, 3.1 * rows), sharex=True, sharey=True)
    for axis, kind in zip(axes.flat, kinds, strict=False):
        part = table[table.structure == kind]
        ideal = part.drop_duplicates("density").sort_values("density")
        axis.plot(ideal.density, ideal.ideal, "--", color=INK, linewidth=1, label="ideal 1/density")
        for name in DATAFLOWS[::-1]:
            line = part[part.dataflow == name].sort_values("density")
            colour, marker = LOOK[name]
            axis.plot(line.density, line[value], color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
        axis.set(xscale="log", yscale="log", title="n of 16" if kind == "n_m" else kind.replace("_", " "))
        axis.set_xticks([0.02, 0.05, 0.1, 0.25, 0.5, 1], ["0.02", "0.05", "0.1", "0.25", "0.5", "1"])
        axis.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
        axis.minorticks_off()
        axis.grid(True)
    for axis in axes.flat[len(kinds) :]:
        axis.axis("off")
    axes.flat[len(kinds)].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.supxlabel("density of the update mask (selected / all weights)")
    figure.supylabel(f"{label} (x)")
    figure.suptitle("3x3 convolution, 128 -> 128 channels, 28x28 pixels, batch 1, 16x16 PEs", fontsize=11)
    return figure


def recorded(table: pd.DataFrame):
    """Speedup and energy gain of recorded masks; the lines at 2.9 and 2.5 are the published averages.

    1 / selected MACs lies beyond the right edge in late epochs.
    """
    table = table[
        (table.selection == "recorded")
        & table.dataflow.isin(["reduction-spatial", "reduction-window", "element-gather"])
    ]
    keys = list(table[["network", "size", "batch", "epoch"]].drop_duplicates().itertuples(index=False))
    order = {"early": 0, "middle": 1, "late": 2}
    keys.sort(key=lambda k: (k.network, k.size, k.batch, order[k.epoch]))
    figure, axes = _figure(1, 2, (11, 0.26 * len(keys) + 1.6), sharey=True)
    names = [f"{SHORT[k.network]}, {k.size} px, batch {k.batch}, {k.epoch}" for k in keys]
    for axis, (value, goal, label) in zip(axes[0], GAINS, strict=True):
        for name in ("element-gather", "reduction-spatial", "reduction-window"):
            rows = table[table.dataflow == name].set_index(["network", "size", "batch", "epoch"])[value]
            values = [rows.get(tuple(key), np.nan) for key in keys]
            colour, marker = LOOK[name]
            axis.plot(values, range(len(keys)), marker, color=colour, label=name)
        if value == "speedup":
            shares = table.drop_duplicates(["network", "size", "batch", "epoch"])
            shares = shares.set_index(["network", "size", "batch", "epoch"]).mac_share
            axis.plot(
                [1 / shares[tuple(k)] for k in keys],
                range(len(keys)),
                "|",
                color=INK,
                markersize=11,
                label="1 / selected MACs",
            )
        axis.axvline(goal, color=INK, linestyle=":", linewidth=1.2, label="published: 2.9 and 2.5")
        axis.axvline(1, color=FAINT, linewidth=1)
        axis.set(xlabel=label, xlim=(0, 10))
        axis.grid(True, axis="x")
    axes[0, 0].set_yticks(range(len(keys)), names)
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def layers(table: pd.DataFrame):
    """Speedup per layer over the layer's own 1/density, small and large images."""
    table = table[
        (table.epoch == "middle")
        & (table.batch == 1)
        & (table.selection == "recorded")
        & (table.dataflow == "reduction-window")
    ]
    panels = _panels(table)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _figure(rows, columns, (6.4 * columns, 2.7 * rows))
    for axis, (network, size) in zip(axes.flat, panels, strict=False):
        part = table[(table.network == network) & (table["size"] == size)].iloc[::-1]
        place = np.arange(len(part))
        one, full = part.groups.to_numpy() == 1, part.used.to_numpy() != "reduction-window"
        axis.bar(place[one], part.speedup[one], color=PALETTE[0], label="one group")
        axis.bar(place[~one], part.speedup[~one], color=PALETTE[2], hatch="\\\\", label="depthwise")
        axis.bar(place[full], part.speedup[full], color=PALETTE[1], hatch="//", label="no mask: dense")
        axis.plot(place, 1 / part.density, "_", color=INK, markersize=7, label="1 / density of the layer")
        axis.set(
            title=f"{SHORT[network]}, {size} px", xlabel="layer, first to last", ylabel="WGC speedup (x)", ylim=(0, 13)
        )
        axis.grid(True, axis="y")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.legend(*axes.flat[len(panels) - 1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def overheads(table: pd.DataFrame):
    """Cycles of WGC by cause, as a share of dense cycles."""
    table = table[(table.epoch == "middle") & (table.batch == 1) & (table.selection == "recorded")].copy()
    parts = [name for name, _ in CAUSES if name.endswith("_cycles")]
    for name in parts:
        table[name] = table.get(name, pd.Series(0.0, table.index)).fillna(0)
    table["rest"] = (table.in_array - table[parts].sum(axis=1)).clip(lower=0)
    keys = _panels(table)
    columns = min(2, len(keys))
    rows = -(-len(keys) // columns)
    figure, axes = _figure(rows, columns, (6.4 * columns, 2.3 * rows + 1.1))
    for axis, (network, size) in zip(axes.flat, keys, strict=False):
        part = table[(table.network == network) & (table["size"] == size)]
        dense = float(part[part.dataflow == "dense-os"].cycles.iloc[0])
        left = np.zeros(len(part))
        for i, (name, label) in enumerate(CAUSES):
            share = part[name].to_numpy(float) / dense
            colour, hatch = (*PALETTE, FAINT, "#8c6d46", "#7a7a85")[i], HATCHES[i % len(HATCHES)]
            axis.barh(
                part.dataflow,
                share,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.3,
                label=label,
            )
            left += share
        axis.set(title=f"{SHORT[network]}, {size} px, batch 1", xlim=(0, 1.02), xlabel="cycles of WGC / dense")
        axis.invert_yaxis()
        axis.grid(True, axis="x")
    for axis in axes.flat[len(keys) :]:
        axis.axis("off")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * columns)
    return figure


def machines(table: pd.DataFrame):
    """reduction-window against dense on other machines, ResNet-18 at 224 px."""
    figure, axes = _figure(1, 2, (11, 0.3 * len(table) + 1.4), sharey=True)
    place = np.arange(len(table))
    for axis, (value, goal, label) in zip(axes[0], GAINS, strict=True):
        axis.barh(place, table[value], color=PALETTE[0], label="with DRAM and buffers")
        if value == "speedup":
            axis.plot(table.array_speedup, place, "D", color=PALETTE[5], label="PE array alone")
        axis.axvline(goal, color=INK, linestyle=":", label="published: 2.9 and 2.5")
        axis.set(xlabel=label)
        axis.grid(True, axis="x")
    axes[0, 0].set_yticks(place, table.machine)
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("ResNet-18, middle epoch, 224 px, batch 1", fontsize=11)
    return figure


def step(table: pd.DataFrame):
    """Whole-step speedup and energy gain; choosing the elements once per epoch of so many steps."""
    part = table[(table.dataflow == "reduction-window") & table.steps_per_epoch.isin([1, 10, np.inf])]
    names = [f"{SHORT[n]}\n{s} px" for n, s in part[["network", "size"]].drop_duplicates().itertuples(index=False)]
    figure, axes = _figure(1, 2, (11, 3.4))
    for axis, value, label in (
        (axes[0, 0], "step_speedup", "step speedup (x)"),
        (axes[0, 1], "step_energy_gain", "step energy gain (x)"),
    ):
        for i, (steps, text) in enumerate(
            ((1, "chosen every step"), (10, "every 10 steps"), (np.inf, "without the choice"))
        ):
            values = part[part.steps_per_epoch == steps][value].to_numpy()
            axis.bar(
                np.arange(len(names)) + (i - 1) * 0.27, values, 0.25, color=PALETTE[i], hatch=HATCHES[i], label=text
            )
        axis.axhline(1, color=INK, linewidth=1)
        axis.set_xticks(range(len(names)), names)
        axis.tick_params(axis="x", labelsize=8)
        axis.set(ylabel=label)
        axis.grid(True, axis="y")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
