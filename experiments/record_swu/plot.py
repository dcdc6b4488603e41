"""Figures of the experiment: accuracy per method, density by epoch and by depth, the alpha sweep.

Usage: python experiments/record_swu/plot.py [--results DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

NETWORK_TITLES = {"resnet18": "ResNet-18", "vgg16_bn": "VGG-16-BN", "mobilenetv2": "MobileNetV2"}
TASK_TITLES = {"digits59": "digits 5-9", "rotated": "rotated 90°", "inverted": "inverted"}
METHOD_TITLES = {
    "piggyback": "mask, all weights (Piggyback)",
    "swu": "mask, targeted weights (SWU)",
    "swu-columns": "mask, targeted column sets",
    "finetune": "fine-tune all weights",
    "norm": "normalisation + head",
    "classifier": "head only",
}
# Okabe and Ito's palette, distinguishable with all common colour vision deficiencies.
COLOURS = dict(zip(METHOD_TITLES, ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#999999"), strict=True))
EPOCH_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")


def save(figure: plt.Figure, path: Path) -> None:
    """Write a PNG without a time stamp, so that equal data give equal files."""
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def tasks_in(table: pd.DataFrame) -> dict[str, str]:
    """Further tasks that the table has, with their titles."""
    return {task: title for task, title in TASK_TITLES.items() if task in set(table.task)}


def plot_accuracy(accuracy: pd.DataFrame, path: Path) -> None:
    """Test accuracy per network, task and method: mean over seeds, every seed as a dot."""
    tasks = tasks_in(accuracy)
    networks = [n for n in NETWORK_TITLES if n in set(accuracy.network)]
    methods = [m for m in METHOD_TITLES if m in set(accuracy.method)]
    figure, axes = plt.subplots(1, len(networks), figsize=(4.2 * len(networks), 3.6), sharey=True)
    width = 0.8 / len(methods)
    for axis, network in zip(np.atleast_1d(axes), networks, strict=True):
        for number, method in enumerate(methods):
            at = np.arange(len(tasks)) + (number - (len(methods) - 1) / 2) * width
            rows = accuracy[(accuracy.network == network) & (accuracy.method == method)]
            by_task = [100 * rows[rows.task == task].test_accuracy.to_numpy() for task in tasks]
            means = [values.mean() if len(values) else np.nan for values in by_task]
            axis.bar(at, means, width, color=COLOURS[method], label=METHOD_TITLES[method])
            for x, values in zip(at, by_task, strict=True):
                axis.plot([x] * len(values), values, ".", color="black", markersize=4)
        axis.set_xticks(range(len(tasks)), tasks.values())
        axis.set_title(NETWORK_TITLES[network])
        axis.set_xlim(-0.5, len(tasks) - 0.5)
        axis.set_ylim(0, 103)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    np.atleast_1d(axes)[0].set_ylabel("test accuracy (%)")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=len(methods), bbox_to_anchor=(0.5, 0.02), frameon=False)
    figure.suptitle("Accuracy of further tasks on a frozen or fine-tuned backbone (bars: mean, dots: seeds)", y=1.0)
    save(figure, path)


def plot_cost(accuracy: pd.DataFrame, path: Path) -> None:
    """What selecting costs: SWU and column sets minus Piggyback per seed, same backbone, head and batches."""
    selections = {"swu": "elements (SWU)", "swu-columns": "column sets of 16 rows"}
    methods = [method for method in selections if method in set(accuracy.method)]
    figure, axes = plt.subplots(1, len(methods), figsize=(3.5 + 3.5 * len(methods), 3.4), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        plot_difference(axis, accuracy, method)
        axis.set_title(selections[method], fontsize=10)
    axes[0, 0].set_ylabel("test accuracy minus Piggyback's\n(percentage points)")
    axes[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle("Cost of training only targeted mask weights (dot: seed, bar: mean)", fontsize=10, y=1.02)
    save(figure, path)


def plot_difference(axis: plt.Axes, accuracy: pd.DataFrame, method: str) -> None:
    """One method minus Piggyback, a dot per network, task and seed."""
    keys = ["network", "task", "seed"]
    own, piggyback = (accuracy[accuracy.method == name].set_index(keys).test_accuracy for name in (method, "piggyback"))
    difference = (100 * (own - piggyback)).dropna().sort_index()
    tasks = tasks_in(accuracy)
    shades = dict(zip(TASK_TITLES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
    for number, network in enumerate(NETWORK_TITLES):
        for offset, task in enumerate(tasks):
            if (network, task) not in difference.index:
                continue
            values = difference.loc[network, task]
            x = number + 0.25 * (offset - (len(tasks) - 1) / 2)
            label = tasks[task] if number == 0 else None
            axis.plot([x] * len(values), values, "o", color=shades[task], ms=5, alpha=0.8, label=label)
            axis.plot([x - 0.08, x + 0.08], [values.mean()] * 2, color="black", lw=1.5)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(NETWORK_TITLES)), NETWORK_TITLES.values())
    axis.grid(axis="y", alpha=0.3)


def plot_density_by_epoch(density: pd.DataFrame, path: Path) -> None:
    """Targeted share of all weights per epoch, one line per network and task, seeds as a band."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    colours = dict(zip(NETWORK_TITLES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
    styles = dict(zip(TASK_TITLES, ("-", "--", ":"), strict=True))
    keys = ["network", "task", "seed", "epoch"]
    sums = density.groupby(keys)[["elements", "targeted", "active"]].sum()
    for axis, column, label in (
        (axes[0], "targeted", "targeted weights (% of all)"),
        (axes[1], "active", "active weights (% of all)"),
    ):
        share = (100 * sums[column] / sums.elements).rename("share").reset_index()
        for (network, task), rows in share.groupby(["network", "task"], sort=False):
            by_epoch = rows.groupby("epoch").share
            name = f"{NETWORK_TITLES[network]}, {TASK_TITLES[task]}"
            mean = by_epoch.mean()
            axis.plot(mean.index, mean, styles[task], color=colours[network], label=name)
            axis.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colours[network], alpha=0.12, lw=0)
        axis.set_xlabel("epoch (0 = first)")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    for epoch in lr_steps(density):
        axes[0].axvline(epoch - 0.5, color="black", lw=0.7, ls=(0, (2, 2)))
        axes[0].text(epoch - 0.4, 97, "lr decay", fontsize=7, va="top")
    axes[0].set_ylim(0, 103)
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle("Selective weight update: densities at the start of each epoch (line: mean of seeds, band: range)")
    figure.tight_layout()
    save(figure, path)


def lr_steps(density: pd.DataFrame) -> list[int]:
    """Epochs at which the learning rate is lower than before."""
    lr = density.groupby("epoch").lr.first()
    return [int(epoch) for epoch in lr.index[1:] if lr[epoch] < lr[epoch - 1]]


def plot_density_by_depth(density: pd.DataFrame, path: Path) -> None:
    """Targeted share per layer, from the input on, in an early, a middle and a late epoch."""
    networks = [n for n in NETWORK_TITLES if n in set(density.network)]
    last = int(density.epoch.max())
    epochs = {"early": 1, "middle": (last + 1) // 2, "late": last}
    figure, axes = plt.subplots(1, len(networks), figsize=(4.4 * len(networks), 3.4), sharey=True)
    colours = ("#0072B2", "#E69F00", "#CC79A7")
    for axis, network in zip(np.atleast_1d(axes), networks, strict=True):
        rows = density[density.network == network]
        order = list(dict.fromkeys(rows.layer))
        for (label, epoch), colour, marker in zip(epochs.items(), colours, EPOCH_MARKERS, strict=False):
            at = rows[rows.epoch == epoch]
            share = (100 * at.targeted / at.elements).groupby([at.layer, at.seed, at.task]).mean()
            by_layer = share.groupby("layer")
            mean, low, high = (getattr(by_layer, name)()[order] for name in ("mean", "min", "max"))
            positions = np.arange(1, len(order) + 1)
            axis.plot(positions, mean, marker=marker, ms=3.5, lw=1, color=colour, label=f"{label} (epoch {epoch})")
            axis.fill_between(positions, low, high, color=colour, alpha=0.15, lw=0)
        axis.set_xlabel("convolution (1 = nearest to the input)")
        axis.set_title(NETWORK_TITLES[network])
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    np.atleast_1d(axes)[0].set_ylim(0, None)  # shared, so only after all bands are drawn
    np.atleast_1d(axes)[0].set_ylabel("targeted weights (% of layer)")
    np.atleast_1d(axes)[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle("Selective weight update: density per layer (line: mean, band: range over seeds and tasks)")
    figure.tight_layout()
    save(figure, path)


def plot_sweep(sweep: pd.DataFrame, path: Path) -> None:
    """Validation accuracy against mean density for every setting of the sweep."""
    figure, axis = plt.subplots(figsize=(5.2, 3.6))
    groups = (
        ("mean distance, decay 0.3", "o", "#D55E00", lambda r: (r.statistic == "mean-distance") & (r.decay == 0.3)),
        ("mean distance, decay 0.1", "s", "#009E73", lambda r: (r.statistic == "mean-distance") & (r.decay == 0.1)),
        ("distance of mean, decay 0.3", "^", "#CC79A7", lambda r: r.statistic == "distance-of-mean"),
        ("all targeted (Piggyback)", "*", "#0072B2", lambda r: r.method == "piggyback"),
    )
    for label, marker, colour, chosen in groups:
        rows = sweep[chosen(sweep)]
        axis.plot(100 * rows.mean_targeted_density, 100 * rows.val_accuracy, marker, color=colour, label=label, ms=7)
        for row in rows[rows.method == "swu"].itertuples():
            where = (100 * row.mean_targeted_density, 100 * row.val_accuracy)
            axis.annotate(rf"$\alpha$ = {row.alpha:g}", where, xytext=(5, 4), textcoords="offset points", fontsize=8)
    axis.set_xlabel("targeted weights (%, mean over epochs)")
    axis.set_ylabel("validation accuracy (%)")
    axis.grid(alpha=0.3)
    axis.margins(x=0.12, y=0.25)
    axis.legend(fontsize=8)
    axis.set_title("Width of the searching range: ResNet-18, rotated digits, seed 0", fontsize=10)
    save(figure, path)


def main() -> None:
    """Draw every figure whose table exists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, default=default, help="folder with the CSV files")
    folder = parser.parse_args().results
    accuracy = pd.read_csv(folder / "accuracy.csv")
    plot_accuracy(accuracy, folder / "accuracy.png")
    plot_cost(accuracy, folder / "swu_minus_piggyback.png")
    density = pd.read_csv(folder / "density.csv.gz")
    plot_density_by_epoch(density, folder / "density_by_epoch.png")
    plot_density_by_depth(density, folder / "density_by_depth.png")
    if (folder / "alpha_sweep.csv").exists():
        plot_sweep(pd.read_csv(folder / "alpha_sweep.csv"), folder / "alpha_sweep.png")


if __name__ == "__main__":
    main()
