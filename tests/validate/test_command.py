"""`npusim validate`: exit codes, tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from npusim.cli import app
from npusim.errors import ConfigError

CYCLES = Path(__file__).parents[2] / "validation" / "rtl" / "cycles.csv"


def run(*words: object):
    return CliRunner().invoke(app, ["validate", *map(str, words)], env={"COLUMNS": "200"})


def test_rows_summary_and_what_is_not_modelled(tmp_path):
    path = tmp_path / "cycles.csv"
    path.write_text("\n".join(CYCLES.read_text().splitlines()[:3]) + "\n")
    result = run("rtl", path)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[2] == ["2", "gemmini_rtl", "exact", "16x16", "OS", "compute", "16x16x16", "93", "93", "0", "0.00"]
    assert ["gemmini_rtl", "exact", "held", "equal", "2", "2", "2", "0.00", "0.00"] in lines
    assert result.output.splitlines()[-1].startswith("not modelled: ")


def test_an_exceeded_bound_is_code_1_and_in_the_json(tmp_path):
    path = tmp_path / "cycles.csv"
    path.write_text("\n".join(CYCLES.read_text().splitlines()[:3]).replace(",93,", ",94,") + "\n")
    result = run("rtl", path, "--json")
    record = json.loads(result.output)
    assert result.exit_code == 1
    assert (record["kind"], record["held"], len(record["rows"])) == ("rtl", False, 2)
    assert [row["difference"] for row in record["rows"]] == [-1, 0]
    assert "EXCEEDED" in run("rtl", path).output


def test_a_wrong_file_is_the_users_mistake(tmp_path):
    result = run("scalesim", CYCLES)
    assert isinstance(result.exception, ConfigError)
    assert "column case_id: missing" in str(result.exception)
    assert "No such file" in str(run("rtl", tmp_path / "none.csv").exception)


def test_an_unknown_kind_names_the_known_ones():
    result = run("rlt", CYCLES)
    assert result.exit_code == 2
    assert "did you mean 'rtl'?" in result.output
