"""A stored sweep as a table, CSV or Parquet."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError
from npusim.sweep.metrics import METRICS
from npusim.sweep.store import STATUSES, Store, StoreError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")


def frame(store: str | Path, sweep: str | None = None) -> pd.DataFrame:
    """One row per point of a sweep that has a result: its keys, then key (of the result), status, message, METRICS.

    `sweep` may be left out when the store holds one.
    """
    import pandas as pd

    with Store(store, writing=False) as opened:
        columns, rows = opened.rows(chosen(opened, sweep))
    if not rows:
        return pd.DataFrame(columns=columns)
    table = pd.DataFrame.from_records(rows, columns=columns)
    points = pd.DataFrame.from_records(_points(table.pop("point"), columns, store))
    _check_cells(table, store)
    for name, kind in METRICS.items():
        table[name] = table[name].astype("Int64" if kind is int else "float64")
    return pd.concat([points, table.drop(columns="position")], axis=1)


def _points(texts: Iterable[Any], columns: Sequence[str], store: str | Path) -> list[dict[str, Any]]:
    """The points of a sweep's rows; StoreError when they are none."""
    try:
        # One parse of one long list is many times faster than one of every row.
        found = json.loads(f"[{','.join(texts)}]")
    except (ValueError, TypeError, RecursionError):
        raise StoreError(f"{store}: a point is no JSON: the store is damaged") from None
    for point in found:
        if not isinstance(point, dict) or not all(isinstance(v, (str, int, float, type(None))) for v in point.values()):
            raise StoreError(f"{store}: a point is no table of plain values: the store is damaged")
        if twice := point.keys() & set(columns):
            raise StoreError(f"{store}: a point sets {min(twice)}, which is a result: the store is damaged")
    return found


def _check_cells(table: pd.DataFrame, store: str | Path) -> None:
    """StoreError when a cell is of another kind than npusim writes: SQLite takes any into any column."""
    kinds = {**dict.fromkeys(("key", "status", "message"), (str,)), "position": (int,),
             **{name: (int,) if kind is int else (int, float) for name, kind in METRICS.items()}}  # fmt: skip
    for column, kind in kinds.items():
        cells = table[column].dropna() if column in METRICS else table[column]
        whole = table[column].dtype.kind == "f" and kind == (int,)  # integers and None become floats
        if not all((whole and float(v).is_integer()) or (isinstance(v, kind) and v == v) for v in cells.tolist()):
            raise StoreError(f"{store}: column {column} holds something else than npusim writes: the store is damaged")
    if not table["status"].isin(STATUSES).all():
        raise StoreError(f"{store}: an unknown status: the store is damaged")


def chosen(store: Store, sweep: str | None) -> str:
    """The name of the wanted sweep, or of the only one."""
    from npusim.errors import unknown

    names = list(store.sweeps())
    if sweep is None and len(names) == 1:
        return names[0]
    if sweep is None:
        raise NpusimError(f"{store.path} holds {len(names)} sweeps ({', '.join(names) or 'none'}): which one?")
    if sweep not in names:
        raise unknown("sweep", sweep, names)
    return sweep


def check(path: Path) -> None:
    """NpusimError when a table cannot be written to `path`; called before long work."""
    from npusim import atomic

    if path.suffix not in SUFFIXES:
        raise NpusimError(f"--export {path}: must end with {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise NpusimError(f'--export {path}: Parquet needs pyarrow; pip install "npusim[parquet]"') from None
    atomic.check(path.parent)


def write(path: Path, table: pd.DataFrame) -> None:
    """`table` as CSV or Parquet, by the suffix of `path`; the file appears whole or not at all."""
    from npusim import atomic

    check(path)
    if path.suffix == ".csv":
        atomic.write(path, csv_text(table))
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        table.to_parquet(temporary, index=False)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def csv_text(table: pd.DataFrame) -> str:
    from npusim.report import csv_text as safe_csv

    return safe_csv(table)


def values(column: pd.Series) -> list[Any]:
    """Different values of a column in their order: numbers by size, words as they come."""
    found = list(dict.fromkeys(column.dropna().tolist()))
    return sorted(found) if all(isinstance(v, (int, float)) for v in found) else found
