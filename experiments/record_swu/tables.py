"""CSV files from the finished runs: accuracy, its mean and deviation, density, the alpha sweep."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import store
from train import SELECTIVE

RUN = ["network", "seed", "task", "method"]


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically; compressed with a fixed time stamp when the name ends in .gz."""
    compression = {"method": "gzip", "mtime": 1} if path.suffix == ".gz" else None
    store.replace_into(path, lambda to: frame.to_csv(to, index=False, compression=compression))


def accuracy_table(runs: list[dict]) -> pd.DataFrame:
    """One row per run; accuracies are shares after the last epoch."""
    rows = [
        {name: run[name] for name in RUN}
        | {
            "test_accuracy": round(run["test_accuracy"], 5),
            "val_accuracy": round(run["val_accuracy"], 5),
            "epochs": run["epochs"],
            "trainable_parameters": run["trainable_parameters"],
            "seconds": round(run["seconds"], 1),
        }
        for run in runs
    ]
    return pd.DataFrame(rows).sort_values(RUN).reset_index(drop=True)


def summary_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds, and the differences to Piggyback and SWU, paired by seed."""
    keys = ["network", "task", "seed"]
    paired = accuracy.set_index(keys)
    for other in ("piggyback", "swu"):
        reference = accuracy[accuracy.method == other].set_index(keys).test_accuracy
        paired[f"minus_{other}"] = paired.test_accuracy - reference.reindex(paired.index)
    grouped = paired.reset_index().groupby(["network", "task", "method"])
    return grouped.agg(
        seeds=("test_accuracy", "size"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_std=("test_accuracy", "std"),
        val_accuracy_mean=("val_accuracy", "mean"),
        minus_piggyback_mean=("minus_piggyback", "mean"),
        minus_piggyback_std=("minus_piggyback", "std"),
        minus_swu_mean=("minus_swu", "mean"),
        minus_swu_std=("minus_swu", "std"),
    ).round(5).reset_index()  # fmt: skip


def density_table(runs: list[dict], method: str = "swu") -> pd.DataFrame:
    """Targeted and active elements per layer at the start of every epoch."""
    rows = [
        {name: run[name] for name in RUN[:3]} | row for run in runs if run["method"] == method for row in run["density"]
    ]
    return pd.DataFrame(rows)


def density_by_epoch_table(runs: list[dict]) -> pd.DataFrame:
    """Targeted and active shares of all weights at the start of every epoch, of every method that selects."""
    rows = [
        {name: run[name] for name in RUN} | row
        for run in runs if run["method"] in SELECTIVE for row in run["density"]
    ]  # fmt: skip
    sums = pd.DataFrame(rows).groupby([*RUN, "epoch"])[["elements", "targeted", "active"]].sum()
    shares = sums[["targeted", "active"]].div(sums.elements, axis=0).round(5)
    return shares.reset_index()


def mean_density(run: dict) -> tuple[float, float]:
    """Targeted share over all epochs and layers, and active share in the last epoch."""
    rows = pd.DataFrame(run["density"])
    last = rows[rows.epoch == rows.epoch.max()]
    return (
        rows.targeted.sum() / rows.elements.sum(),
        last.active.sum() / last.elements.sum(),
    )


def write_sweep(out: Path) -> None:
    """alpha_sweep.csv: one row per setting tried."""
    rows = []
    for run in store.load_runs(out / "sweep"):
        targeted, active = mean_density(run)
        piggyback = run["method"].startswith("piggyback")
        rows.append(
            {name: run[name] for name in RUN[:3]}
            | {
                "method": "piggyback" if piggyback else "swu",
                "statistic": "" if piggyback else run["statistic"],
                "alpha": "" if piggyback else run["alpha"],
                "decay": run["decay"],
                "mean_targeted_density": round(targeted, 4),
                "final_active_density": round(active, 4),
                "val_accuracy": round(run["val_accuracy"], 5),
                "test_accuracy": round(run["test_accuracy"], 5),
                "final_training_loss": round(run["losses"][-1], 5),
            }
        )
    write_csv(pd.DataFrame(rows), out / "results" / "alpha_sweep.csv")


def write_all(out: Path) -> None:
    """All tables that the finished runs allow."""
    runs = store.load_runs(out)
    accuracy = accuracy_table(runs)
    write_csv(accuracy, out / "results" / "accuracy.csv")
    write_csv(summary_table(accuracy), out / "results" / "accuracy_summary.csv")
    density = density_table(runs)
    if len(density):
        write_csv(density, out / "results" / "density.csv.gz")
        write_csv(density_by_epoch_table(runs), out / "results" / "density_by_epoch.csv")
