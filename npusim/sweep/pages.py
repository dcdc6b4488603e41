"""Everything that a sweep leaves for people to look at, in one folder: page, figures, table."""

from __future__ import annotations

from pathlib import Path

from npusim.errors import NpusimError
from npusim.sweep import analysis, export
from npusim.sweep.store import Store


def write(store: str | Path, sweep: str | None, out: str | Path) -> None:
    """index.html, results.csv and each figure as .png and .svg of one sweep of a store into the folder `out`."""
    from npusim import atomic, plot
    from npusim.html.sweep import sweep_page
    from npusim.sweep.figures import figures
    from npusim.sweep.layers import rooflines

    with Store(store, writing=False) as opened:
        name = export.chosen(opened, sweep)
        description = opened.sweeps()[name]
    table = export.frame(store, name)
    done = analysis.done(table)
    files: dict[str, bytes | str] = {"results.csv": export.csv_text(table)}
    if done.empty:
        atomic.write_files(out, files)
        raise NpusimError(f"sweep {name!r} has no point with a result: nothing to draw (see {out}/results.csv)")
    spec = description["spec"]
    objectives = tuple(spec.get("objectives", ("cycles", "energy_pj", "area_mm2")))
    roofs, note = rooflines(done, objectives)
    drawn = figures(done, objectives, spec.get("baseline", "dense-os"), roofs, name)
    files |= {f"{key}.png": image for key, image in plot.pngs(drawn).items()}
    files |= {f"{key}.svg": image for key, image in plot.svgs(drawn).items()}
    files["index.html"] = sweep_page(table, description, roofs, note)
    atomic.write_files(out, files)
