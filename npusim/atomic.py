"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from npusim.errors import NpusimError

Content = bytes | str | Iterable[bytes]


def write(path: str | Path, content: Content) -> None:
    """Put `content` (text as UTF-8, or pieces one after the other) at `path`, replacing what was there in one step."""
    path = Path(path)
    write_files(path.parent, {path.name: content})


def write_files(folder: str | Path, files: Mapping[str, Content]) -> None:
    """Put `files` (name -> content) into `folder`, made if missing; other files there stay.

    Everything is written beside its target first; only when all of it is on the disk are the files moved into
    place, one after the other. A failure before that leaves the folder as it was.
    """
    folder = Path(folder)
    check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[tuple[str, Path]] = []
    try:
        for name, content in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
            waiting.append((temporary, folder / name))
            with os.fdopen(handle, "wb") as file:
                whole = content.encode() if isinstance(content, str) else content
                file.writelines([whole] if isinstance(whole, bytes) else whole)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
        while waiting:
            os.replace(*waiting[0])
            waiting.pop(0)
    finally:
        for temporary, _ in waiting:
            Path(temporary).unlink(missing_ok=True)


def check(folder: str | Path) -> None:
    """NpusimError when `folder` cannot be made or written; called before long work whose result goes there."""
    folder = Path(folder)
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NpusimError(f"cannot write to {folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NpusimError(f"cannot write to {folder}: no permission to write in {nearest}")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
