"""Hand-written TOML into frozen, strict models; every mistake of a file is reported together.

Quantities may be written with their unit; plain integers are in the base unit:

| type           | base unit | written as                                  |
|----------------|-----------|---------------------------------------------|
| Bytes          | byte      | 4096, "96 KiB", "16MiB", "2kB" (1000 bytes) |
| Hertz          | Hz        | 800000000, "800MHz", "1GHz"                 |
| BytesPerSecond | byte/s    | "25.6GB/s" (10^9), "1GiB/s" (2^30)          |
| Nanoseconds    | ns        | 100, "100ns", "1us"                         |
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
import typing
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from npusim.errors import ConfigError, closest

MAX_FILE_BYTES = 2**20
MAX_LINE_DOTS = 1000  # tomllib takes a time that grows with the square of the parts of a dotted key
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_UNITS = MappingProxyType(
    {
        "bytes": _SIZES,
        "hertz": {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9},
        "bytes per second": {f"{unit}/s": factor for unit, factor in _SIZES.items()},
        "nanoseconds": {"ns": 1, "us": 10**3, "ms": 10**6},
    }
)


def quantity(value: Any, what: str) -> int:
    """`value` (an integer, or text such as "25.6GB/s") as a whole number of base units of `what`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    units = _UNITS[what]
    allowed = f"must be a whole number of {what} or text such as {f'4 {list(units)[-1]}'!r} ({', '.join(units)})"
    if not isinstance(value, str):
        raise ValueError(allowed)
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z/]+)\s*", value)
    if match is None or match[2] not in units:
        raise ValueError(allowed)
    number = Decimal(match[1]) * units[match[2]]
    if number != int(number):
        raise ValueError(f"must be a whole number of {what}")
    return int(number)


Bytes = Annotated[int, BeforeValidator(partial(quantity, what="bytes"))]
Hertz = Annotated[int, BeforeValidator(partial(quantity, what="hertz"))]
BytesPerSecond = Annotated[int, BeforeValidator(partial(quantity, what="bytes per second"))]
Nanoseconds = Annotated[int, BeforeValidator(partial(quantity, what="nanoseconds"))]


class Model(BaseModel):
    """Base of everything read from a hand-written file: no unknown keys, no conversions, no changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=Model)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a regular TOML file of at most 1 MiB; ConfigError names the file and what is wrong with it."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise ConfigError(f"{path}: not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, the limit for a hand-written file")
    if any(line.count(b".") > MAX_LINE_DOTS for line in raw.splitlines()):
        raise ConfigError(f"{path}: a line has more than {MAX_LINE_DOTS} dots, the limit for a hand-written file")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def load(model: type[M], path: str | Path) -> M:
    """The file at `path` as a `model`."""
    return validate(model, read_toml(path), str(path))


def validate(model: type[M], data: Mapping[str, Any], where: str) -> M:
    """`data` as a `model`; one ConfigError lists every problem with its key path, headed by `where`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [line for item in error.errors(include_url=False) for line in _describe(model, item)]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    raise ConfigError("\n  ".join([f"{where}: {count}", *lines]))


def leaves(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted paths and values of everything in nested tables."""
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _describe(model: type[Model], item: Any) -> list[str]:
    """One line per problem of a pydantic error: key path, value, what is allowed."""
    location = tuple(item["loc"])
    path = ".".join(map(str, location))
    if item["type"] == "missing":
        return [f"{path}: missing"]
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return [f"{path}: unknown key{closest(str(location[-1]), known)}; allowed: {', '.join(known)}"]
    cause = item.get("ctx", {}).get("error")
    text = str(cause) if isinstance(cause, Exception) else item["msg"].replace("Input should be", "must be", 1)
    if isinstance(item["input"], Mapping):
        prefix = f"{path}: " if path else ""
        return [prefix + line for line in text.splitlines()]
    return [f"{path} = {_shown(item['input'])}: {text}"]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[Model], location: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a key path; a table of named rows (`dict[str, Row]`) accepts any row name."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:
            current = typing.get_args(current)[-1]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
