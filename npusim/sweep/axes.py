"""Axes of a design space: keys, their values or ranges, and how both are written.

| written as                | values                                                                    |
|---------------------------|---------------------------------------------------------------------------|
| `[8, 16, 32]`             | these                                                                     |
| `"64KiB..1MiB log2"`      | doubling from the first to the last                                       |
| `"8..64 step 8"`          | equal steps (the last value only if a step meets it)                      |
| `"8..64 linear 5"`        | 5 values at equal distances, rounded                                      |
| `"8..64 log 5"`           | 5 values at equal ratios, rounded                                         |
| `"8..64"`, `"8..64 log"`  | random draws and search only: any whole number, evenly or log-evenly      |

Numbers take the unit of their key ("64KiB", "12.8GB/s", "800MHz").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from npusim.errors import ConfigError, closest

if TYPE_CHECKING:
    from random import Random

# Keys that choose the run; every other key is one of the machine.
RUN_KEYS = (
    "workload",
    "hardware",
    "dataflow",
    "method",
    "input_size",
    "batch",
    "energy",
    "engine",
    "objective",
    "mapping",
)
WHOLE_KEYS = {"input_size": 65536, "batch": 1048576}
MAX_VALUES = 100_000
MAX_DIGITS = 30
_UNIT = r"(?: (?!log|step|linear)[A-Za-z/]+)?"
_RANGE = re.compile(rf"\s*(\S+?{_UNIT})\s*\.\.\s*(\S+?{_UNIT})(?:\s+(log2|step|linear|log)(?:\s+(\S.*?))?)?\s*")


@dataclass(frozen=True)
class Axis:
    """Keys that move together, and the tuples of values that they take in order."""

    keys: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def label(self) -> str:
        """'array.rows', or of linked keys 'array.rows, array.cols'."""
        return ", ".join(self.keys)


@dataclass(frozen=True)
class Interval:
    """Whole numbers from `low` to `high`, drawn evenly or, with `log`, evenly in their logarithm."""

    key: str
    low: int
    high: int
    log: bool

    def draw(self, random: Random) -> int:
        if not self.log:
            return random.randint(self.low, self.high)
        return min(self.high, max(self.low, round(self.low * (self.high / self.low) ** random.random())))


@cache
def machine_keys() -> Mapping[str, Any]:
    """Every key of a machine: dotted path -> pydantic field."""
    from npusim.npu import Hardware

    return {key: field for key, field in _leaves(Hardware, "") if key not in ("name", "description", "source")}


def _leaves(model: Any, prefix: str):
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def full_key(key: str) -> str:
    """`key` as a run key or the full path of a machine's key; ConfigError suggests the closest."""
    paths = machine_keys()
    if key in RUN_KEYS or key in paths:
        return key
    matches = [path for path in paths if path.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"{key}: ambiguous, write one of {', '.join(matches)}")
    known = [*RUN_KEYS, *paths, *(path.rpartition(".")[2] for path in paths)]
    raise ConfigError(
        f"{key}: unknown key{closest(key, known)}; keys of a run: {', '.join(RUN_KEYS)}; else a key of the machine"
    )


def value(key: str, written: Any) -> Any:
    """One value of `key` in base units; ConfigError says what is allowed."""
    if key in WHOLE_KEYS:
        if isinstance(written, bool) or not isinstance(written, int) or not 1 <= written <= WHOLE_KEYS[key]:
            raise ConfigError(f"{key} = {written!r}: must be a whole number from 1 to {WHOLE_KEYS[key]}")
        return written
    if key in RUN_KEYS:
        if not isinstance(written, str) or not written:
            raise ConfigError(f"{key} = {written!r}: must be a name or a path")
        return written
    from pydantic import ValidationError

    try:
        return _adapter(key).validate_python(written, strict=True)
    except ValidationError as error:
        causes = (item.get("ctx", {}).get("error", item["msg"]) for item in error.errors(include_url=False))
        text = "; ".join(str(cause).replace("Input should be", "must be", 1) for cause in causes)
        raise ConfigError(f"{key} = {written!r}: {text}") from None


@cache
def _adapter(key: str):
    from pydantic import TypeAdapter

    field = machine_keys()[key]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(kind)


def values(key: str, written: Any) -> tuple[Any, ...]:
    """The values that an axis of `key` takes."""
    parsed = parse(key, written)
    if isinstance(parsed, Interval):
        raise ConfigError(
            f"{key} = {written!r}: which values? write 'log2', 'step N', 'linear N' or 'log N' behind the range"
        )
    return parsed


def parse(key: str, written: Any) -> tuple[Any, ...] | Interval:
    """Values of an axis, or the interval of a range that names no values."""
    if isinstance(written, list):
        if not written:
            raise ConfigError(f"{key}: an empty list; give at least one value")
        found = tuple(value(key, item) for item in written)
    elif isinstance(written, str) and (match := _RANGE.fullmatch(written)) and _numeric(key):
        low, high = value(key, _number(match[1])), value(key, _number(match[2]))
        if not low < high:
            raise ConfigError(f"{key} = {written!r}: the first value must be less than the last")
        if match[3] is None or (match[3] == "log" and match[4] is None):
            return Interval(key, low, high, match[3] == "log")
        found = _spaced(key, written, low, high, match[3], match[4])
    else:
        found = (value(key, written),)
    twice = sorted({repr(item) for item in found if found.count(item) > 1})
    if twice:
        raise ConfigError(f"{key}: given twice: {', '.join(twice)}")
    return found


def _numeric(key: str) -> bool:
    return key in WHOLE_KEYS or (key not in RUN_KEYS and machine_keys()[key].annotation is int)


def _number(text: str) -> Any:
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else text


def _spaced(key: str, written: str, low: int, high: int, kind: str, argument: str | None) -> tuple[int, ...]:
    if kind == "log2":
        if argument is not None or low < 1:
            raise ConfigError(f"{key} = {written!r}: 'log2' doubles a first value of 1 or more, and takes no number")
        return tuple(low << i for i in range((high // low).bit_length()))
    if argument is None:
        raise ConfigError(f"{key} = {written!r}: write a number behind {kind!r}")
    if kind == "step":
        step = value(key, _number(argument))
        if step < 1 or (high - low) // step >= MAX_VALUES:
            raise ConfigError(f"{key} = {written!r}: the step gives more than {MAX_VALUES} values")
        return tuple(range(low, high + 1, step))
    if not argument.isdecimal() or len(argument) > MAX_DIGITS or not 2 <= int(argument) <= MAX_VALUES:
        raise ConfigError(f"{key} = {written!r}: a number of values from 2 to {MAX_VALUES} belongs behind {kind!r}")
    count = int(argument)
    if kind == "log" and low < 1:
        raise ConfigError(f"{key} = {written!r}: 'log' needs a first value of 1 or more")
    shares = [i / (count - 1) for i in range(count)]
    spread = [low * (high / low) ** s if kind == "log" else low + (high - low) * s for s in shares]
    return tuple(dict.fromkeys(round(number) for number in spread))
