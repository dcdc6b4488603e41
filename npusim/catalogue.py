"""Finds catalogue files by name: workloads, dataflows, hardware descriptions and energy tables.

Looked for in this order; the first hit wins:

1. the name itself, when it is a path (it has a separator or a known suffix);
2. `<folder>/<kind>/` for each folder of the environment variable `NPUSIM_PATH`;
3. for dataflows, the entry-point group `npusim.dataflows` of installed distributions;
4. what ships with npusim: `npusim/_builtin/<kind>` of an installed wheel, else the folder `<kind>` beside
   the package in a checkout; `npusim/data/<kind>` for hardware and energy.

| kind      | the file of `name`                                                                             |
|-----------|------------------------------------------------------------------------------------------------|
| workloads | `<name>/<name>.npz`, the only .npz in `<name>/`, `<folder>/<trace>.npz` as "folder/trace", `<name>.npz` |
| dataflows | `<name with - as _>.py`                                                                        |
| hardware  | `<name>.toml`                                                                                  |
| energy    | `<name>.toml`                                                                                  |
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from npusim.errors import CatalogueError, NpusimError, unknown

KINDS = ("workloads", "dataflows", "hardware", "energy")
ENTRY_POINTS = "npusim.dataflows"
_SINGULAR = {"workloads": "workload", "dataflows": "dataflow", "hardware": "hardware", "energy": "energy table"}
_SUFFIXES = {
    "workloads": (".npz", ".csv", ".onnx"),
    "dataflows": (".py",),
    "hardware": (".toml",),
    "energy": (".toml",),
}


def find(kind: str, name: str | Path) -> Path:
    """The file of `name`; CatalogueError lists the known names and suggests the closest."""
    if _is_path(kind, str(name)):
        found = _explicit(kind, Path(name))
        if found is not None:
            return found
        if len(Path(name).parts) != 2 or Path(name).suffix:
            raise CatalogueError(f"no such {_SINGULAR[kind]} file: {name}")
    listing = _listing(kind)
    if str(name) not in listing:
        raise unknown(_SINGULAR[kind], str(name), list(listing))
    return listing[str(name)]


def names(kind: str) -> list[str]:
    """Every known name, sorted."""
    return sorted(_listing(kind))


def load_dataflow(name: str | Path) -> Any:
    """The object `DATAFLOW` of a dataflow file; a file that fails to import is an error that names the cause."""
    import importlib.util
    import zlib

    path = find("dataflows", name).resolve()
    stamp = zlib.crc32(f"{path}:{path.stat().st_mtime_ns}".encode())
    module_name = f"npusim_dataflow_{path.stem}_{stamp:08x}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise NpusimError(f"dataflow {path} cannot be imported: {type(error).__name__}: {error}") from error
    module = sys.modules[module_name]
    if not hasattr(module, "DATAFLOW"):
        raise NpusimError(f"dataflow {path} does not define DATAFLOW")
    return module.DATAFLOW


def _is_path(kind: str, name: str) -> bool:
    return os.sep in name or "/" in name or name.endswith(_SUFFIXES[kind])


def _explicit(kind: str, path: Path) -> Path | None:
    if path.is_file():
        return path
    inside = _traces(path) if kind == "workloads" and path.is_dir() else {}
    return next(iter(inside.values())) if len(inside) == 1 else None


def _listing(kind: str) -> dict[str, Path]:
    """name -> file, over all places; earlier places win."""
    listing: dict[str, Path] = {}
    for folder in os.environ.get("NPUSIM_PATH", "").split(os.pathsep):
        if folder:
            listing = _scan(kind, Path(folder) / kind) | listing
    if kind == "dataflows":
        listing = _entry_points(tuple(sys.path)) | listing
    return _scan(kind, _builtin(kind)) | listing


def _builtin(kind: str) -> Path:
    package = Path(__file__).resolve().parent
    if kind in ("hardware", "energy"):
        return package / "data" / kind
    installed = package / "_builtin" / kind
    return installed if installed.is_dir() else package.parent / kind


def _scan(kind: str, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    if kind == "workloads":
        found = {path.stem: path for path in sorted(folder.glob("*.npz"))}
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                found |= _traces(child)
        return found
    if kind == "dataflows":
        files = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
        return {path.stem.replace("_", "-"): path for path in files}
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _traces(folder: Path) -> dict[str, Path]:
    """The traces of a workload folder: its main one under the folder's name, several as 'folder/trace'."""
    files = sorted(folder.glob("*.npz"))
    main = [path for path in files if path.stem == folder.name] or (files if len(files) == 1 else [])
    others = {f"{folder.name}/{path.stem}": path for path in files if path not in main}
    return {folder.name: main[0]} | others if main else others


@cache
def _entry_points(search_path: tuple[str, ...]) -> dict[str, Path]:
    """Files of the modules that distributions on `search_path` (sys.path) name in the entry-point group.

    Looked up once: it reads the metadata of every installed distribution.
    """
    import importlib.util
    from importlib.metadata import entry_points

    found = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.module)
        except Exception as error:
            raise NpusimError(
                f"entry point {point.name!r} of {ENTRY_POINTS}: {type(error).__name__}: {error}"
            ) from error
        if spec is None or not spec.origin:
            raise NpusimError(f"entry point {point.name!r} of {ENTRY_POINTS}: no module {point.module!r}")
        found[point.name] = Path(spec.origin)
    return found
