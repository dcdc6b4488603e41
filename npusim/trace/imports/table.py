"""Layer tables: the lists of `npusim.layers` as TOML or CSV.

A CSV file has a heading with keys of layers; `name` and `kind` are needed, an empty cell is the default. Sizes are
written `1x3x224x224` or `3`, several inputs `a;b`, flags `true`. Example:

    name,kind,inputs,shape,out,kernel,stride,padding,bias
    image,input,,1x3x32x32,,,,,
    conv1,conv,,,16,3,2,1,true
    relu1,activation,,,,,,,
    flat,flatten,,,,,,,
    fc,linear,,,10,,,,true
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError, TraceError, closest
from npusim.layers import Layer
from npusim.synthesis import from_file, from_layers
from npusim.trace.imports.files import read_text

if TYPE_CHECKING:
    from npusim.graph import StepGraph

MAX_ROWS = 50_000
_KEYS = {field.name: str(field.type) for field in fields(Layer)}


def from_layer_table(path: str | Path, *, name: str = "", optimizer: str = "") -> StepGraph:
    """The step of a layer table; a .toml file brings its own name and optimizer, which the arguments replace."""
    if Path(path).suffix.lower() == ".toml":
        read_text(path)
        return from_file(path, name, optimizer)
    layers = _rows(path)
    meta = {"made_by": "npusim.trace.from_layer_table", "source": Path(path).name}
    try:
        return from_layers(layers, name or Path(path).stem, optimizer or "sgd", meta)
    except NpusimError as error:
        raise TraceError(f"{path}: {error}") from None


def is_table(path: str | Path) -> bool:
    """Whether a CSV file has the heading of a layer table (SCALE-Sim's have others)."""
    heading = read_text(path).split("\n", 1)[0].lower().split(",")
    return {"name", "kind"} <= {cell.strip() for cell in heading}


def _rows(path: str | Path) -> list[dict[str, Any]]:
    reader = csv.reader(io.StringIO(read_text(path)))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise TraceError(f"{path}: line {reader.line_num}: {error}") from None
    if len(rows) > MAX_ROWS:
        raise TraceError(f"{path}: {len(rows)} lines, at most {MAX_ROWS} are allowed")
    heading = [cell.strip() for cell in rows[0]] if rows else []
    problems = [f"column {key!r} is no key of a layer{closest(key, _KEYS)}" for key in heading if key not in _KEYS]
    problems += [f"the heading lacks {key!r}" for key in ("name", "kind") if key not in heading]
    problems += [f"column {key!r} appears twice" for key in dict.fromkeys(heading) if heading.count(key) > 1]
    layers = []
    for number, row in enumerate(rows[1:], start=2):
        if problems or not any(cell.strip() for cell in row):
            continue
        if len(row) != len(heading):
            problems.append(f"line {number}: {len(row)} cells, the heading has {len(heading)}")
            continue
        cells = {key: cell.strip() for key, cell in zip(heading, row, strict=True) if cell.strip()}
        layers.append({key: _value(key, cell, number, problems) for key, cell in cells.items()})
    if problems:
        raise TraceError("\n  ".join([f"{path}: not a layer table:", *problems[:20]]))
    return layers


def _value(key: str, cell: str, number: int, problems: list[str]) -> Any:
    kind = _KEYS[key]
    if kind == "str":
        return cell
    if key == "inputs":
        return tuple(part.strip() for part in cell.split(";"))
    if kind == "bool":
        if cell.lower() not in ("true", "false"):
            problems.append(f"line {number}: {key} = {cell!r}; true or false is needed")
        return cell.lower() == "true"
    if not re.fullmatch(r"\d{1,12}(x\d{1,12}){0,7}", cell):
        problems.append(f"line {number}: {key} = {cell!r}; whole numbers are needed, as in 3 or 1x3x32x32")
        return 0
    sizes = tuple(int(part) for part in cell.split("x"))
    return sizes if key == "shape" or len(sizes) > 1 else sizes[0]
