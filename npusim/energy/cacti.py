"""SRAM macros from a CACTI 7 binary of the user's, named by the environment variable NPUSIM_CACTI.

When it is set, every buffer that the energy table gives no numbers for is priced by running it: the settings of the
shipped figures (energy-delay-squared, 300 K), any size and width. CACTI ends with code 0 when it fails, so its output
is believed only when it holds one row for the macro that was asked for, with positive numbers. Rows are kept in the
user's cache folder, named by the hash of binary and configuration.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from npusim import atomic
from npusim.errors import ConfigError, NpusimError

VARIABLE = "NPUSIM_CACTI"
TIMEOUT_SECONDS = 120.0
CONFIGURATION = Path(__file__).resolve().parents[1] / "data" / "energy" / "cacti.cfg"
PORTS = {"1rw": (1, 0, 0), "1r1w": (0, 1, 1)}
# Columns of CACTI's .out file that are read; the first four must repeat what was asked for.
NODE, SIZE, BANKS, WIDTH = "Tech node (nm)", "Capacity (bytes)", "Number of banks", "Output width (bits)"
READ, WRITE = "Dynamic read energy (nJ)", "Dynamic write energy (nJ)"
LEAKAGE, AREA = "Standby leakage per bank(mW)", "Area (mm2)"


class Answer(NamedTuple):
    """What CACTI says of one macro; energies are per access of the whole word."""

    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float


class Binary(NamedTuple):
    """A CACTI binary and the sha256 of its content."""

    path: Path
    sha256: str

    @property
    def source(self) -> str:
        return f"CACTI run here (300 K), {VARIABLE} = {self.path}, sha256 {self.sha256[:12]}"


def binary() -> Binary | None:
    """The binary that NPUSIM_CACTI names; None when it is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).absolute()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigError(f"{VARIABLE} = {named}: is not a program that can be run; it must be the path of CACTI 7")
    state = path.stat()
    return Binary(path, _sha256(path, state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, _changed: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def macro(program: Binary, size_bytes: float, width_bits: float, cell: str, node_nm: float, ports: str) -> Answer:
    """The macro as `program` computes it, or as it did before."""
    if size_bytes % 1 or width_bits % 8:
        raise ConfigError(
            f"{VARIABLE}: CACTI takes whole bytes, not a bank of {size_bytes:g} bytes with words of {width_bits:g} bits"
        )
    return _answer(program, int(size_bytes), int(width_bits), cell, node_nm, ports)


@functools.lru_cache(maxsize=1024)
def _answer(program: Binary, size_bytes: int, width_bits: int, cell: str, node_nm: float, ports: str) -> Answer:
    text = configuration(size_bytes, width_bits, cell, node_nm, ports)
    key = hashlib.sha256(f"{program.sha256}\n{text}".encode()).hexdigest()
    kept = cache_folder() / f"{key}.json"
    found = _kept(kept)
    if found is None:
        found = _parse(_run(program, text), program, size_bytes, width_bits, node_nm)
        # Without a cache CACTI runs again; that is no reason to fail.
        with contextlib.suppress(OSError, NpusimError):
            atomic.write(kept, json.dumps(found._asdict()) + "\n")
    return found


def configuration(size_bytes: int, width_bits: int, cell: str, node_nm: float, ports: str) -> str:
    """The text of CACTI's .cfg file."""
    both, read, write = PORTS[ports]
    return CONFIGURATION.read_text(encoding="utf-8").format(
        size=size_bytes, block=width_bits // 8, width=width_bits, cell=cell, micron=f"{node_nm / 1000:.4f}",
        both=both, read=read, write=write,
    )  # fmt: skip


def cache_folder() -> Path:
    """Where answers are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "npusim" / "cacti"


def _kept(path: Path) -> Answer | None:
    """An answer of the cache; None when there is none that can be believed."""
    try:
        found = Answer(**json.loads(path.read_text(encoding="utf-8")))
        return found if all(_positive(value) for value in found) else None
    except (OSError, ValueError, TypeError):
        return None


def _run(program: Binary, text: str) -> str:
    """The .out file that CACTI writes beside its configuration, or what it said instead."""
    with tempfile.TemporaryDirectory(prefix="npusim-cacti-") as folder:
        # CACTI reads its technology files from the current folder.
        tables = program.path.parent / "tech_params"
        if tables.is_dir():
            (Path(folder) / "tech_params").symlink_to(tables)
        (Path(folder) / "macro.cfg").write_text(text, encoding="utf-8")
        said = Path(folder) / "said.txt"
        with said.open("wb") as file:
            try:
                process = subprocess.Popen(
                    [str(program.path), "-infile", "macro.cfg"], cwd=folder, stdin=subprocess.DEVNULL, stdout=file,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ConfigError(f"{VARIABLE} = {program.path}: cannot be run: {error.strerror}") from None
            try:
                code = process.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise ConfigError(f"{VARIABLE} = {program.path}: no answer within {TIMEOUT_SECONDS:g} s") from None
        found = Path(folder) / "macro.cfg.out"
        if code == 0 and found.is_file():
            return found.read_text(encoding="utf-8", errors="replace")
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise ConfigError(
            f"{VARIABLE} = {program.path}: wrote no result (exit code {code}); it says: {' '.join(last) or 'nothing'}"
        )


def _parse(text: str, program: Binary, size_bytes: int, width_bits: int, node_nm: float) -> Answer:
    """The one row of CACTI's output, when it is the row that was asked for."""
    lines = [line for line in text.splitlines() if line.strip()]
    wrong = f"{VARIABLE} = {program.path}: its output is not that of CACTI 7 for {size_bytes} bytes x {width_bits} bits"
    if len(lines) != 2:
        raise ConfigError(f"{wrong}: {len(lines)} lines, not a header and one row")
    header, row = ([cell.strip() for cell in line.split(",")] for line in lines)
    cells = dict(zip(header, row, strict=False))
    numbers = {}
    for column in (NODE, SIZE, BANKS, WIDTH, READ, WRITE, LEAKAGE, AREA):
        try:
            numbers[column] = float(cells[column])
        except (KeyError, ValueError):
            raise ConfigError(f"{wrong}: {column} = {cells.get(column)!r}") from None
    asked = {NODE: node_nm, SIZE: size_bytes, BANKS: 1, WIDTH: width_bits}
    for column, value in asked.items():
        if abs(numbers[column] - value) > 1e-3:
            raise ConfigError(f"{wrong}: {column} = {numbers[column]:g}, not {value:g}")
    for column in (READ, WRITE, LEAKAGE, AREA):
        if not _positive(numbers[column]):
            raise ConfigError(f"{wrong}: {column} = {numbers[column]:g}")
    return Answer(numbers[READ] * 1e3, numbers[WRITE] * 1e3, numbers[LEAKAGE], numbers[AREA])


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
