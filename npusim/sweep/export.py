"""A stored sweep as a table, CSV or Parquet."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError
from npusim.sweep.metrics import METRICS
from npusim.sweep.store import Store

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
    # One parse of one long list is many times faster than one of every row.
    points = pd.DataFrame.from_records(json.loads(f"[{','.join(table.pop('point'))}]"))
    for name, kind in METRICS.items():
        table[name] = table[name].astype("Int64" if kind is int else "float64")
    return pd.concat([points, table.drop(columns="position")], axis=1)


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
