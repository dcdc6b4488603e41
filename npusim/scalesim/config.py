"""SCALE-Sim's `.cfg`: the keys that its versions 2 and 3 read, all of them mandatory."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

from npusim.errors import ConfigError, closest

DATAFLOWS = ("os", "ws", "is")
INT_KEYS = {
    "ArrayHeight": "array_rows", "ArrayWidth": "array_cols", "IfmapSramSzkB": "ifmap_kb", "FilterSramSzkB": "filter_kb",
    "OfmapSramSzkB": "ofmap_kb", "IfmapOffset": "", "FilterOffset": "", "OfmapOffset": "",
}  # fmt: skip
# Features of version 3 that are read only to say that they are not modelled; a file of version 2 lacks them.
UNMODELLED = (
    ("run_presets", "UseRamulatorTrace"),
    ("layout", "IfmapCustomLayout"),
    ("layout", "FilterCustomLayout"),
    ("sparsity", "SparsitySupport"),
)
KNOWN = {key.lower() for key in (*INT_KEYS, "run_name", "Dataflow", "Bandwidth", "MemoryBanks", "InterfaceBandwidth")}
MAX_ARRAY, MAX_KB = 2**16, 2**20


@dataclass(frozen=True)
class Config:
    """Array and buffers (in units of 1024 words); `limited` when InterfaceBandwidth is USER."""

    run_name: str
    array_rows: int
    array_cols: int
    ifmap_kb: int
    filter_kb: int
    ofmap_kb: int
    dataflow: str
    limited: bool


def read(path: str | Path) -> Config:
    """The configuration at `path`; one ConfigError lists every missing and every wrong key."""
    path = Path(path)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a SCALE-Sim configuration: {' '.join(str(error).split())}") from None
    keys = _Keys(parser)
    run_name = keys.text("general", "run_name")
    numbers = {field or key: keys.integer("architecture_presets", key, field) for key, field in INT_KEYS.items()}
    dataflow = keys.choice("architecture_presets", "Dataflow", DATAFLOWS)
    mode = keys.choice("run_presets", "InterfaceBandwidth", ("CALC", "USER"))
    if mode == "USER":
        keys.bandwidth("architecture_presets", "Bandwidth")
    for section, key in UNMODELLED:
        keys.off(section, key)
    if keys.problems:
        count = "1 problem" if len(keys.problems) == 1 else f"{len(keys.problems)} problems"
        raise ConfigError("\n  ".join([f"{path}: {count}", *keys.problems]))
    sizes = {name: numbers[name] for name in INT_KEYS.values() if name}
    return Config(run_name=run_name, dataflow=dataflow, limited=mode == "USER", **sizes)


class _Keys:
    """Typed access that collects problems in place of raising them."""

    def __init__(self, parser: configparser.ConfigParser) -> None:
        self.parser = parser
        self.problems: list[str] = []

    def text(self, section: str, key: str) -> str:
        if self.parser.has_option(section, key):
            return self.parser.get(section, key).strip()
        if self.parser.has_section(section):
            strangers = [name for name in self.parser[section] if name not in KNOWN and name[0] == key[0].lower()]
            self.problems.append(f"{section}.{key}: missing{closest(key.lower(), strangers)}")
        else:
            self.problems.append(f"{section}.{key}: missing, as is the section [{section}]")
        return ""

    def integer(self, section: str, key: str, field: str) -> int:
        value = self.text(section, key)
        low, high = (1, MAX_ARRAY if field.startswith("array") else MAX_KB) if field else (0, 2**63 - 1)
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if value and not low <= number <= high:
            self.problems.append(f"{section}.{key} = {value!r}: must be a whole number from {low} to {high}")
        return number

    def choice(self, section: str, key: str, allowed: tuple[str, ...]) -> str:
        value = self.text(section, key)
        if value and value not in allowed:
            self.problems.append(
                f"{section}.{key} = {value!r}: must be {' or '.join(allowed)}{closest(value, [*allowed])}"
            )
        return value

    def bandwidth(self, section: str, key: str) -> None:
        value = self.text(section, key)
        if value and not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,17}\s*", part) for part in value.split(",")):
            self.problems.append(f"{section}.{key} = {value!r}: must be words per cycle, whole numbers above 0")

    def off(self, section: str, key: str) -> None:
        value = self.parser.get(section, key, fallback="False").strip()
        if value.lower() not in ("false", "no", "off", "0"):
            self.problems.append(f"{section}.{key} = {value!r}: not modelled, must be False")
