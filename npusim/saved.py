"""Results as files, and back: CSV tables and manifest.json.

| file           | content                                                                                  |
|----------------|------------------------------------------------------------------------------------------|
| layers.csv     | one row per operation, `Result.layers`                                                   |
| phases.csv     | sums per phase and for the step, `Result.phases`                                         |
| energy.csv     | pJ of every operation, a column `component.action`; six digits; not read back            |
| units.csv      | how every unit spent the step, `Result.units`                                            |
| memory.csv     | bytes alive in every operation, `Result.memory`                                          |
| comparison.csv | of several runs: speedup and energy gain, `Comparison.table`                             |
| manifest.json  | provenance, and in `runs` the machine, prices and masks of every run (`results.Facts`)   |

Tables with energy end with a column `low_confidence`: components that are priced so (not read back). Tables of several
runs begin with a column `run`. Numbers keep every digit, so that a report made from files is the
report that was made with them. Names lose control characters (`npusim.text`).
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim import config, memory, text
from npusim.bounds import BOUNDS
from npusim.breakdown import STEP
from npusim.comparison import Comparison
from npusim.counters import COUNTERS
from npusim.errors import ConfigError, ResultsError
from npusim.graph import PHASES
from npusim.report import csv_text, json_text
from npusim.results import WORDS, Facts, Result
from npusim.simulation import TIMING
from npusim.units import CAUSES

if TYPE_CHECKING:
    import pandas as pd

LOW = "low_confidence"
TABLES = ("layers", "phases", "units", "memory")
_INDEX = {"phases": "phase", "units": "unit"}
_SUMS = (*TIMING, *COUNTERS, "macs", "energy_pj", "utilisation", "bound_cycles")
NEEDED = {
    "layers": (*WORDS, *_SUMS, "density"),
    "phases": ("phase", *_SUMS),
    "units": ("unit", *CAUSES),
    "memory": ("phase", "name", *memory.GROUPS),
}
SCHEMA = 1
MAX_FILE_BYTES = 2**28
LARGEST = 1e30


def files(result: Result | Comparison) -> dict[str, str]:
    """Name -> content of every file."""
    runs = (result,) if isinstance(result, Result) else result.runs
    found = {f"{name}.csv": csv_text(_marked(runs, _joined(runs, name))) for name in TABLES}
    found["energy.csv"] = csv_text(_marked(runs, _energy(runs)))
    if isinstance(result, Comparison):
        found["comparison.csv"] = csv_text(_marked(runs, result.table.reset_index()))
    return {**found, "manifest.json": json_text(manifest(result))}


def manifest(result: Result | Comparison) -> dict[str, Any]:
    """What manifest.json holds."""
    return (result.compare() if isinstance(result, Result) else result).manifest


def read(folder: str | Path) -> Result | Comparison:
    """The results in `folder`; ResultsError names the file and what is wrong with it."""
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        record = json.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        hint = "" if folder.is_dir() else "; a folder that `npusim run --out` or `compare --out` wrote is needed"
        reason = getattr(error, "strerror", None) or error
        raise ResultsError(f"{path}: cannot be read: {reason}{hint}") from None
    runs = record.get("runs") if isinstance(record, dict) else None
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) and "label" in run for run in runs):
        raise ResultsError(f"{path}: has no 'runs': another version of npusim wrote it")
    if type(record.get("schema")) is not int or record["schema"] != SCHEMA:
        raise ResultsError(f"{path}: schema = {repr(record.get('schema'))[:40]}; this version of npusim reads {SCHEMA}")
    labels = [str(run.pop("label")) for run in runs]
    try:
        facts = [config.validate(Facts, run, f"{path}: runs.{i}") for i, run in enumerate(runs)]
    except ConfigError as error:
        raise ResultsError(str(error)) from None
    if len(set(labels)) < len(labels):
        raise ResultsError(f"{path}: two of its runs have the same label")
    tables = {name: _split(folder / f"{name}.csv", name, labels) for name in TABLES}
    for i, fact in enumerate(facts):
        _check_facts(fact, tables["layers"][i], tables["phases"][i], f"{path}: runs.{i}")
    rest = {key: value for key, value in record.items() if key != "runs"}
    results = tuple(
        Result(label, fact, **{name: tables[name][i] for name in TABLES}, manifest=_checked(rest, path))
        for i, (label, fact) in enumerate(zip(labels, facts, strict=True))
    )
    return results[0] if len(results) == 1 else Comparison(results)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes, the limit for a file of results")
    return raw.decode("utf-8")


def _check_facts(facts: Facts, layers: pd.DataFrame, phases: pd.DataFrame, where: str) -> None:
    """ResultsError when the prices name work or components that the tables do not have, or a number is out of range."""
    work = sorted({a.work for a in facts.prices.actions} - set(layers.columns))
    parts = sorted({a.component for a in facts.prices.actions if f"{a.component}_pj" not in phases})
    for missing, file, what in ((work, "layers.csv", "work"), (parts, "phases.csv", "components")):
        if missing:
            raise ResultsError(f"{where}: prices of {what} that {file} does not have: {', '.join(missing)[:200]}")
    prices, masked = facts.prices, facts.masked
    numbers = (facts.operations, facts.macs, masked.parameters, masked.selected, masked.size, prices.node_nm,
               prices.leakage_mw, *facts.shares, *(a.pj for a in prices.actions))  # fmt: skip
    if not facts.shares or not all(0 <= n < LARGEST for n in numbers):
        raise ResultsError(f"{where}: a number is missing, negative or too large")


def _checked(record: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {"command": list, "date": str, "versions": dict, "code_sha256": str, "workload": dict, "hardware": dict,
             "dataflows": dict}  # fmt: skip
    bad = [key for key, kind in known.items() if not isinstance(record.get(key), kind)]
    bad += [f"{key}.digest" for key in ("workload", "hardware")
            if key not in bad and not isinstance(record[key].get("digest"), str)]  # fmt: skip
    if bad:
        raise ResultsError(f"{path}: missing or of another kind: {', '.join(bad)}")
    return record


def _marked(runs: tuple[Result, ...], table: pd.DataFrame) -> pd.DataFrame:
    """With the column LOW when the table holds energy: components of every run that are priced with low confidence."""
    if not any(name == "energy_pj" or "." in str(name) for name in table):
        return table
    doubtful = {run.label: " ".join(run.facts.prices.doubtful) for run in runs}
    of = table["run"].map(doubtful) if "run" in table else next(iter(doubtful.values()))
    return table.assign(**{LOW: of})


def _energy(runs: tuple[Result, ...]) -> pd.DataFrame:
    """One row per operation: picojoules of every action, six digits; actions that cost nothing anywhere are left out.

    One row per operation and action (`Result.actions`) would say each name twenty times and hold counts of layers.csv.
    """
    import pandas as pd

    frames = []
    for run in runs:
        head = [name for name in ("part", "share", "phase", "name") if name in run.layers]
        spent = {f"{price.component}.{price.action}": run.layers[price.work] * price.pj for price in
                 run.facts.prices.actions}  # fmt: skip
        shown = {name: [float(f"{pj:.6g}") for pj in column] for name, column in spent.items()}
        frames.append(run.layers[head].join(pd.DataFrame(shown, run.layers.index)))
    table = _labelled(runs, frames)
    actions = [name for name in table if "." in str(name)]
    return table.drop(columns=[name for name in actions if not table[name].any()])


def _joined(runs: tuple[Result, ...], name: str) -> pd.DataFrame:
    """One table of all runs."""
    frames = [getattr(run, name) for run in runs]
    if name in _INDEX:
        frames = [frame.reset_index(names=_INDEX[name]) for frame in frames]
    return _labelled(runs, frames)


def _labelled(runs: tuple[Result, ...], frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The frames as one; of several runs, the first column says which."""
    import pandas as pd

    if len(runs) == 1:
        return frames[0]
    frames = [frame.copy() for frame in frames]
    for frame, run in zip(frames, runs, strict=True):
        frame.insert(0, "run", run.label)
    return pd.concat(frames, ignore_index=True)


def _split(path: Path, name: str, labels: list[str]) -> list[pd.DataFrame]:
    """The table of every run of a file, in the order of `labels`."""
    frame = _table(path, name)
    if len(labels) == 1:
        return [_indexed(frame, name)]
    shown = [text.from_csv_cell(text.csv_cell(label)) for label in labels]
    if "run" not in frame or set(frame["run"]) != set(shown):
        raise ResultsError(f"{path}: the column 'run' does not hold the labels of manifest.json")
    return [
        _indexed(frame[frame["run"] == label].drop(columns="run").dropna(axis="columns", how="all"), name)
        for label in shown
    ]  # fmt: skip


def _table(path: Path, name: str) -> pd.DataFrame:
    import pandas as pd

    words = ("run", "unit", *WORDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the heading
            frame = pd.read_csv(io.StringIO(_text(path)), dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise ResultsError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if frame.columns.has_duplicates:
        raise ResultsError(f"{path}: has a column twice")
    frame = frame.drop(columns=LOW, errors="ignore")
    strange = []
    for column in frame:
        if column in words:
            frame[column] = frame[column].map(text.from_csv_cell).astype(object)
            continue
        try:
            frame[column] = _numbers(frame[column])
        except ValueError:
            strange.append(str(column))
    missing = [column for column in NEEDED[name] if column not in frame]
    if missing:
        raise ResultsError(f"{path}: has no column {', '.join(missing)}")
    empty = [c for c in NEEDED[name] if frame[c].isna().any()]
    if strange or empty or frame.empty:
        problem = "is empty" if frame.empty else f"holds no numbers in {', '.join([*strange, *empty])}"
        raise ResultsError(f"{path}: {problem}")
    _check_cells(frame, name, path)
    return frame


def _check_cells(frame: pd.DataFrame, name: str, path: Path) -> None:
    """ResultsError for numbers that no simulation gives, unknown phases and bounds, and rows that are missing."""
    import numpy as np

    for column in frame.select_dtypes("number"):
        values = frame[column].to_numpy()
        shown = values[~np.isnan(values.astype(float))]
        if not ((shown >= 0) & (shown < LARGEST)).all():
            raise ResultsError(f"{path}: {column} holds a number that is negative, not finite or too large")
    allowed = {"phase": (*PHASES, STEP) if name == "phases" else PHASES, "bound": BOUNDS}
    for column, known in allowed.items():
        if column in frame and not frame[column].isin(known).all():
            raise ResultsError(f"{path}: {column} must be one of {', '.join(known)}")
    key = _INDEX.get(name)
    if key and frame.duplicated([k for k in ("run", key) if k in frame]).any():
        raise ResultsError(f"{path}: a {key} stands there twice")
    if name == "phases":
        steps = frame[frame["phase"] == STEP]
        runs = frame["run"].nunique() if "run" in frame else 1
        if len(steps) != runs:
            raise ResultsError(f"{path}: the row of phase {STEP} is missing")


def _numbers(column: pd.Series) -> pd.Series:
    """Text as whole numbers, or as the nearest floats (missing ones as NaN); ValueError for anything else."""
    import numpy as np
    import pandas as pd

    cells = column.tolist()
    try:
        return pd.Series(np.array([int(cell) for cell in cells], np.int64), column.index)
    except (ValueError, OverflowError):
        return pd.Series(np.array([float(cell or "nan") for cell in cells]), column.index)


def _indexed(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame.set_index(_INDEX[name]) if name in _INDEX else frame.reset_index(drop=True)
