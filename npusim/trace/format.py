"""The trace file: one npz-compatible zip of `manifest.json` and `masks/<n>.npy`.

| member           | content                                                                                   |
|------------------|-------------------------------------------------------------------------------------------|
| `manifest.json`  | schema version, name, ops, tensors, masks (shape, sha256, member), meta                   |
| `masks/<n>.npy`  | `np.packbits` bytes of one mask, C order; equal masks share a member                      |

Nothing in a file is trusted: the zip directory is checked before anything is inflated, the manifest
before any mask is, and no pickle is ever read. Limits are the constants below.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npusim import atomic
from npusim.errors import NpusimError, TraceError
from npusim.graph import StepGraph
from npusim.masks import Mask
from npusim.trace import manifest

MANIFEST = "manifest.json"
MAX_FILE_BYTES = 2**30
MAX_MEMBERS = 20_000
MAX_DIRECTORY_BYTES = 4 * 2**20
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_MASK_BYTES = 2**28
MAX_TOTAL_BYTES = 2**30
MAX_RATIO = 1100  # deflate cannot do better than 1032; a directory that says more is lying
MAX_ENTRY_BYTES = 1024  # name, extra field and comment of one directory entry
_MASK_MEMBER = re.compile(r"masks/(0|[1-9][0-9]{0,5})\.npy")
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write(graph: StepGraph, path: str | os.PathLike[str]) -> None:
    """Store `graph`, replacing the file in one step. Equal graphs give equal bytes.

    TraceError when the graph is inconsistent or something in it could not be read back.
    """
    graph.verify()
    members: dict[str, Mask] = {}
    index: dict[str, str] = {}
    value = manifest.encode(graph)
    for group, masks in value["masks"].items():
        for key, entry in masks.items():
            member = index.setdefault(entry["sha256"], f"masks/{len(index)}.npy")
            entry["member"] = member
            members[member] = getattr(graph, group)[key]
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise TraceError(f"{path}: the step's meta is not plain JSON: {error}") from error
    manifest.decode(_load_json(text, str(path)), str(path))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in {MANIFEST: text, **{n: _npy(m.packed) for n, m in members.items()}}.items():
            info = zipfile.ZipInfo(name, _TIMESTAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, data)
    if len(buffer.getbuffer()) > MAX_FILE_BYTES:
        raise TraceError(f"{path}: the trace has {len(buffer.getbuffer())} bytes, at most {MAX_FILE_BYTES} are allowed")
    try:
        atomic.write(Path(path), buffer.getvalue())
    except OSError as error:
        raise NpusimError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: str | os.PathLike[str]) -> StepGraph:
    """The step in a trace file, verified; TraceError names the file, the member and what is allowed."""
    label = str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise TraceError(f"{label}: not a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise TraceError(f"{label}: {size} bytes, at most {MAX_FILE_BYTES} are allowed")
            _end_record(file, label, size)
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, label, size)
    except TraceError:
        raise
    except FileNotFoundError as error:
        raise TraceError(f"{label}: no such file") from error
    except OSError as error:
        raise TraceError(f"{label}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and zlib raise a dozen types on corrupt input
        raise TraceError(f"{label}: not a readable trace file: {type(error).__name__}: {error}") from error


def _read_archive(archive: zipfile.ZipFile, label: str, file_bytes: int) -> StepGraph:
    members = _directory(archive, label, file_bytes)
    value = _load_json(_inflate(archive, members[MANIFEST], label), label)
    decoded = manifest.decode(value, label)
    used = {entry.member for masks in decoded.masks.values() for entry in masks.values()}
    if used != set(members) - {MANIFEST}:
        odd = sorted(used ^ (set(members) - {MANIFEST}))[0]
        raise TraceError(f"{label}: member {odd!r} is {'missing' if odd in used else 'not listed in the manifest'}")
    groups: dict[str, dict[str, Mask]] = {}
    cache: dict[str, np.ndarray] = {}
    for masks in decoded.masks.values():
        for entry in masks.values():
            info = members[entry.member]
            expected = len(_npy_header(entry.packed_bytes)) + entry.packed_bytes
            if info.file_size != expected:
                raise TraceError(
                    f"{label}: member {entry.member!r} has {info.file_size} bytes, a mask of shape "
                    f"{entry.shape} takes {expected}"
                )
    for group, masks in decoded.masks.items():
        groups[group] = {key: _mask(archive, members[e.member], e, label, cache) for key, e in masks.items()}
    graph = StepGraph(decoded.name, decoded.ops, decoded.tensors, meta=decoded.meta, **groups)
    try:
        graph.verify()
    except TraceError as error:
        raise TraceError(f"{label}: {error}") from error
    return graph


def _end_record(file: BinaryIO, label: str, size: int) -> None:
    """Bound the zip directory before zipfile makes an object of each entry."""
    file.seek(max(0, size - 42))
    tail = file.read()
    file.seek(0)
    record = tail[-22:]
    if len(record) < 22 or record[:4] != b"PK\x05\x06" or record[-2:] != b"\0\0":
        raise TraceError(f"{label}: not a readable trace file: it does not end with the directory of a zip")
    if tail[-42:-38] == b"PK\x06\x07":
        raise TraceError(f"{label}: not a readable trace file: 64-bit zip directories are not allowed")
    directory_bytes = int.from_bytes(record[12:16], "little")
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise TraceError(
            f"{label}: a zip directory of {directory_bytes} bytes, at most {MAX_DIRECTORY_BYTES} are allowed"
        )


def _directory(archive: zipfile.ZipFile, label: str, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Members by name, after checks that read nothing but the zip directory."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise TraceError(f"{label}: {len(infos)} members, at most {MAX_MEMBERS} are allowed")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if problem := _member_problem(info, members):
            raise TraceError(f"{label}: member {_shown(info.filename)} {problem}")
        members[info.filename] = info
    if MANIFEST not in members:
        raise TraceError(f"{label}: has no {MANIFEST}: not a trace file")
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL_BYTES:
        raise TraceError(f"{label}: members inflate to {total} bytes, at most {MAX_TOTAL_BYTES} are allowed")
    end = 0
    for info in sorted(infos, key=lambda item: item.header_offset):
        if info.header_offset < end or info.header_offset + info.compress_size > file_bytes:
            raise TraceError(f"{label}: member {_shown(info.filename)} overlaps another or lies outside the file")
        end = info.header_offset + info.compress_size
    return members


def _member_problem(info: zipfile.ZipInfo, members: Mapping[str, Any]) -> str:
    """What is wrong with one entry of the zip directory, or ''."""
    name = info.filename
    limit = MAX_MANIFEST_BYTES if name == MANIFEST else MAX_MASK_BYTES
    mode = info.external_attr >> 16
    if info.orig_filename != name or (name != MANIFEST and not _MASK_MEMBER.fullmatch(name)):
        return f"is not allowed; only {MANIFEST} and masks/<number>.npy are"
    if name in members:
        return "appears twice"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is not a regular file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"uses compression method {info.compress_type}; stored and deflate are allowed"
    if info.file_size > limit:
        return f"has {info.file_size} bytes, at most {limit} are allowed"
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        return f"expands {info.compress_size} to {info.file_size} bytes, at most {MAX_RATIO} times is allowed"
    if len(name) + len(info.extra) + len(info.comment) > MAX_ENTRY_BYTES:
        return "has an oversized directory entry"
    return ""


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str) -> bytes:
    """The member's bytes: exactly as many as the directory says, with the right CRC."""
    try:
        with archive.open(info) as stream:
            data = stream.read(info.file_size + 1)
    except Exception as error:
        raise TraceError(f"{label}: member {_shown(info.filename)} is corrupt: {error}") from error
    if len(data) != info.file_size:
        raise TraceError(
            f"{label}: member {_shown(info.filename)} has {len(data)} bytes, its entry says {info.file_size}"
        )
    return data


def _mask(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: manifest.MaskEntry, label: str, cache: dict[str, np.ndarray]
) -> Mask:
    if entry.member not in cache:
        data = _inflate(archive, info, label)
        header = _npy_header(entry.packed_bytes)
        if data[: len(header)] != header:
            raise TraceError(
                f"{label}: member {entry.member!r} is not a one-dimensional uint8 array of {entry.packed_bytes} bytes"
            )
        packed = np.frombuffer(data, np.uint8, offset=len(header))
        packed.flags.writeable = False
        cache[entry.member] = packed
    mask = Mask(entry.shape, cache[entry.member])
    unused = -mask.size % 8
    if unused and mask.packed[-1] & ((1 << unused) - 1):
        raise TraceError(f"{label}: member {entry.member!r} sets bits behind the end of its mask")
    if mask.digest() != entry.sha256:
        raise TraceError(f"{label}: member {entry.member!r} does not have the digest that the manifest gives")
    return mask


def _npy(packed: np.ndarray) -> bytes:
    return _npy_header(packed.size) + packed.tobytes()


def _npy_header(length: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    return buffer.getvalue()


def _load_json(text: bytes, label: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            raise ValueError("a key appears twice in one object")
        return value

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
            raise ValueError(f"integer {digits[:24]} does not fit 64 bits")
        return int(digits)

    def number(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"number {digits[:24]} is not finite")
        return value

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not allowed")

    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TraceError(f"{label}: member {MANIFEST!r} is not valid JSON: {reason}") from error


def _shown(name: str) -> str:
    return ascii(name[:80])
