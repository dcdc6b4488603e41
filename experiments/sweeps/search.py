"""Search against random draws: hypervolume of the front after the same number of simulations.

    python experiments/sweeps/search.py [--trials 192] [--seeds 3]

Writes search.csv (sampler, seed, trials, hypervolume) and search.png. Hypervolume is taken in logarithms of cycles,
energy and area between a point and a reference that is worse than every point found by anybody, and shown relative to
the best front known (that of all simulations together).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from npusim import plot
from npusim.sweep import front, spec
from npusim.sweep.progress import Progress
from npusim.sweep.search import search
from npusim.sweep.store import Store

HERE = Path(__file__).resolve().parent
SAMPLERS = ("nsga2", "tpe", "random")
STEP = 16


def points(path: Path, name: str, objectives: tuple[str, ...], trials: int) -> list[tuple[float, ...] | None]:
    """Logarithms of the objectives of every trial in order; None where there is no result."""
    found: list[tuple[float, ...] | None] = [None] * trials
    with Store(path, writing=False) as store:
        columns, rows = store.rows(name)
    for row in rows:
        named = dict(zip(columns, row, strict=True))
        if named["status"] == "done":
            found[named["position"]] = tuple(math.log(named[objective]) for objective in objectives)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=192)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "search")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    space = spec.load(HERE / "space.toml")
    store = options.out / "search.sqlite"
    found = {}
    for seed in range(options.seeds):
        for sampler in SAMPLERS:
            named = spec.parse({**space.source, "name": f"{sampler}-{seed}"})
            search(
                named, options.trials, store, sampler=sampler, seed=seed, workers=options.workers, listener=Progress()
            )
            found[sampler, seed] = points(store, named.name, named.objectives, options.trials)
    table = volumes(found)
    table.to_csv(options.out / "search.csv", index=False)
    draw(table, options.out / "search.png")
    last = table[table.trials == table.trials.max()]
    print(last.groupby("sampler").hypervolume.describe()[["count", "mean", "min", "max"]].to_string())


def volumes(found: dict[tuple[str, int], list[tuple[float, ...] | None]]) -> pd.DataFrame:
    """Hypervolume after every STEP trials, as a share of that of all points together."""
    everything = [p for trials in found.values() for p in trials if p is not None]
    reference = tuple(max(values) + 0.1 for values in zip(*everything, strict=True))
    best = [everything[i] for i in front.front(everything)]
    whole = front.hypervolume(best, reference)
    rows = []
    for (sampler, seed), trials in found.items():
        for count in range(STEP, len(trials) + 1, STEP):
            known = [p for p in trials[:count] if p is not None]
            chosen = [known[i] for i in front.front(known)]
            rows.append((sampler, seed, count, front.hypervolume(chosen, reference) / whole))
    return pd.DataFrame(rows, columns=["sampler", "seed", "trials", "hypervolume"])


def draw(table: pd.DataFrame, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(plot.STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for i, (sampler, rows) in enumerate(table.groupby("sampler", sort=False)):
            by_trials = rows.groupby("trials").hypervolume
            axes.plot(by_trials.mean().index, by_trials.mean(), color=plot.PALETTE[i], label=sampler)
            axes.fill_between(
                by_trials.min().index, by_trials.min(), by_trials.max(), color=plot.PALETTE[i], alpha=0.15
            )
        axes.set(xlabel="trials", ylabel="hypervolume (share of the best known front)")
        axes.set_title("Search against random draws (line: mean, band: all seeds)", loc="left")
        axes.grid(True)
        axes.legend()
        figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
