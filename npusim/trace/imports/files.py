"""Bounded reading of other tools' files."""

from __future__ import annotations

import gzip
import json
import stat
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from npusim.errors import TraceError

MAX_FILE_BYTES = 2**29
MAX_TEXT_BYTES = 2**29
MAX_TABLE_BYTES = 2**24


def read_bytes(path: str | Path, most: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file, at most `most` of them."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise TraceError(f"{path}: not a regular file")
        if status.st_size > most:
            raise TraceError(f"{path}: {status.st_size} bytes, at most {most} are allowed")
        return Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: str | Path, most: int = MAX_TABLE_BYTES) -> str:
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: not UTF-8 text (byte {error.start})") from None


def load_json(path: str | Path) -> Any:
    """The value of a JSON file, gzipped or not. Not to be changed: the next call may get the same."""
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = _inflate(str(path))
    try:
        return _parsed(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TraceError(f"{path}: not valid JSON: {reason[:300]}") from None


@lru_cache(maxsize=1)
def _parsed(data: bytes) -> Any:
    """Parsed once, though a file is read twice: to see of which format it is, and as that."""
    return json.loads(data)


def forget() -> None:
    """Let go of the JSON that was parsed last."""
    _parsed.cache_clear()


def _inflate(path: str) -> bytes:
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: not a readable gzip file: {error}") from None
    if len(data) > MAX_TEXT_BYTES:
        raise TraceError(f"{path}: inflates to more than {MAX_TEXT_BYTES} bytes")
    return data
