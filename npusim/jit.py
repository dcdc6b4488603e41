"""`njit` for kernels: compiled code is kept in a per-user folder named by everything that it depends on.

numba keys its cache by the file of the compiled function only, so a kernel would go on using the old machine
code of a function that it imports from another file. Here the folder's name holds the hash of all kernel
sources and the versions of Python, numba and numpy: an edit anywhere starts a new folder.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy
from numba.core import config as numba_config


@cache
def cache_folder() -> Path:
    """Folder of compiled kernels: in $NUMBA_CACHE_DIR, $XDG_CACHE_HOME or ~/.cache (cache files are pickles: the
    folder must not be writable by others)."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "npusim" / f"kernels-{sources_digest()[:16]}"


def kernel_files(package: Path = Path(__file__).parent) -> list[Path]:
    """Files of `package` whose text goes into machine code: those that compile kernels and the codes they share."""
    marks = (b"njit", b"_dram_state")
    return [path for path in sorted(package.rglob("*.py"))
            if path.name == "program.py" or any(mark in path.read_bytes() for mark in marks)]  # fmt: skip


def sources_digest(package: Path = Path(__file__).parent) -> str:
    """sha256 over the `kernel_files` of `package` and the versions that compile them."""
    digest = hashlib.sha256(f"{sys.version} numba {numba.__version__} numpy {numpy.__version__}".encode())
    for path in kernel_files(package):
        digest.update(f"\n{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def njit(function: Callable, **options: Any) -> Callable:
    """Compile a kernel with numba (and its `options`) and cache it; plain Python under NUMBA_DISABLE_JIT=1."""
    config: Any = numba_config
    former = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        return numba.njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = former
