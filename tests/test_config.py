"""Hand-written files: quantities, and error messages that list every mistake."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from npusim import config
from npusim.config import Bytes, Model
from npusim.errors import ConfigError


class Engine(Model):
    kind: Literal["fast", "reference"]
    lanes: Annotated[int, Field(ge=1)]
    cache: Bytes = 0


class Machine(Model):
    name: str
    engine: Engine
    rows: dict[str, Engine] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "what", "value"),
    [
        (4096, "bytes", 4096),
        ("256KiB", "bytes", 256 * 1024),
        ("96 KiB", "bytes", 96 * 1024),
        ("1.5MiB", "bytes", 1536 * 1024),
        ("2kB", "bytes", 2000),
        ("1GHz", "hertz", 10**9),
        ("25.6GB/s", "bytes per second", 25_600_000_000),
        ("100ns", "nanoseconds", 100),
        ("1.5us", "nanoseconds", 1500),
    ],
)
def test_quantities_in_base_units(text, what, value):
    assert config.quantity(text, what) == value


@pytest.mark.parametrize("text", ["256KB", "KiB", "-1KiB", "1e3B", "12 parsecs", "", 1.5, True, None, [1]])
def test_a_quantity_without_a_known_unit_is_refused(text):
    with pytest.raises(ValueError, match="must be a whole number of bytes or text such as '4 GiB'"):
        config.quantity(text, "bytes")


def test_half_a_byte_is_refused():
    with pytest.raises(ValueError, match="must be a whole number of bytes"):
        config.quantity("0.5B", "bytes")


def test_all_mistakes_of_a_file_are_reported_together(tmp_path):
    path = tmp_path / "machine.toml"
    path.write_text(
        'name = 3\nrow = 1\n[engine]\nkind = "quick"\nlanes = 0\ncache = "256KB"\n[rows.x]\nlanes = 1\nkindd = "fast"\n'
    )
    with pytest.raises(ConfigError) as caught:
        config.load(Machine, path)
    assert str(caught.value) == "\n  ".join(
        [
            f"{path}: 7 problems",
            "name = 3: must be a valid string",
            "engine.kind = \"quick\": must be 'fast' or 'reference'",
            "engine.lanes = 0: must be greater than or equal to 1",
            "engine.cache = \"256KB\": must be a whole number of bytes or text such as '4 GiB' "
            "(B, kB, MB, GB, KiB, MiB, GiB)",
            "rows.x.kind: missing",
            "rows.x.kindd: unknown key (did you mean 'kind'?); allowed: kind, lanes, cache",
            "row: unknown key (did you mean 'rows'?); allowed: name, engine, rows",
        ]
    )


def test_values_are_not_converted():
    with pytest.raises(ConfigError, match=r'engine\.lanes = "16": must be a valid integer'):
        config.validate(Machine, {"name": "m", "engine": {"kind": "fast", "lanes": "16"}}, "here")


def test_a_good_file_is_frozen(tmp_path):
    path = tmp_path / "machine.toml"
    path.write_text('name = "m"\nengine = {kind = "fast", lanes = 4, cache = "1KiB"}\n')
    machine = config.load(Machine, path)
    assert machine.engine.cache == 1024
    with pytest.raises(ValueError, match="frozen"):
        machine.name = "other"


def test_broken_toml_names_file_and_place(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("a = \n")
    with pytest.raises(ConfigError) as caught:
        config.read_toml(path)
    assert str(caught.value) == f"{path}: not valid TOML: Invalid value (at line 1, column 5)"


def test_a_deeply_nested_file_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.read_toml(path)


def test_unreadable_files_are_config_errors(tmp_path):
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8 text \(byte 8\)"):
        config.read_toml(latin)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        config.read_toml(large)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file or directory"):
        config.read_toml(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        config.read_toml(tmp_path)
