"""Changes of JSON values that keep them JSON, so that a fuzzer gets behind the parser."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 3, 7, 2**31, 2**40, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"))
OTHERS = (None, True, False, "", "x", [], {}, [[]], "\u202e", "=1+1", "\x1b[31m")
CELLS = (
    b"", b"0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e400", b"1e300", b"0.5", b"9" * 30, b"9" * 5000, b'"', b"step",
    b"a,b", b"'=1+1", b"\xff", "\u202e".encode(), b"1x1", b"16x16", b"18446744073709551616", b"2147483648",
)  # fmt: skip


def mutated(data: bytes, random: Random, tokens: tuple[str, ...] = ()) -> bytes | None:
    """`data` with one to four of its parts changed; None when it is no JSON object or list."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, (dict, list)):
        return None
    for _ in range(random.randint(1, 4)):
        change(value, random, tokens)
    return json.dumps(value, separators=(",", ":")).encode()


def mutated_cells(data: bytes, random: Random) -> bytes:
    """`data`, a table in CSV, with one to three cells, columns or rows changed."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(random.randint(1, 3)):
        row = random.choice(rows)
        at = random.randrange(len(row))
        kind = random.randrange(8)
        if kind == 0:
            rows.remove(row) if len(rows) > 1 else None
        elif kind == 1:
            rows.insert(random.randint(0, len(rows)), list(row))
        elif kind == 2:
            for other in rows:
                del other[at : at + 1]
                other or other.append(b"")
        elif kind == 3:
            for other in rows:
                other.insert(at, other[at] if at < len(other) else b"")
        else:
            row[at] = random.choice((*CELLS, random.choice(random.choice(rows))))
    return b"\n".join(b",".join(row) for row in rows)


def change(root: Any, random: Random, tokens: tuple[str, ...]) -> None:
    """One part of `root` is removed, repeated, moved, or gets another value."""
    places = [(parent, key) for parent, key in _places(root)]
    if not places:
        return
    parent, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        other, at = random.choice(places)
        parent[key] = copy.deepcopy(other[at]) if not _holds(other[at], parent) else None
    elif kind == 2 and isinstance(parent, list):
        parent.insert(random.randint(0, len(parent)), copy.deepcopy(parent[key]))
    elif kind == 3 and isinstance(parent, list):
        parent.append(parent.pop(key))
    elif kind == 4 and tokens:
        parent[key] = random.choice(tokens).strip('"')
    elif isinstance(parent[key], (int, float)) and random.random() < 0.7:
        parent[key] = random.choice((*NUMBERS, parent[key] + 1, parent[key] - 1, 2 * parent[key]))
    else:
        parent[key] = copy.deepcopy(random.choice(OTHERS))


def _places(root: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [root]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            found.append((value, key))
            if isinstance(value[key], (dict, list)):
                waiting.append(value[key])
    return found


def _holds(value: Any, wanted: Any) -> bool:
    return value is wanted or any(
        _holds(part, wanted)
        for part in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    )
