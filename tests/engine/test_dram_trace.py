"""Exported DRAM requests are those that the engine served; the adapter of Ramulator."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from examples import layer_step
from typer.testing import CliRunner

from npusim import npu
from npusim.cli import app
from npusim.engine import dram_trace, memory
from npusim.errors import ConfigError, NpusimError
from npusim.graph import Conv
from npusim.simulation import simulate

EDGE = {"dram.model": "commands"}


@pytest.fixture(scope="module")
def run():
    return simulate(layer_step(Conv(1, 8, 14, 14, 16, 3, 3)), npu.load("edge-16x16").replace(EDGE))


def test_every_burst_stands_in_the_trace_once(run):
    used = memory.memory(run.hardware)
    parts = list(dram_trace.bursts(run.lowered.program, run.schedule, used))
    address, write, clock = (np.concatenate(column) for column in zip(*parts, strict=True))
    commands = run.dram_commands.sum()
    assert address.size == commands[["RD", "WR", "forwarded", "merged"]].sum()
    assert (address % 32 == 0).all() and (np.diff(clock) >= 0).all()
    assert 0 < write.sum() < address.size and clock[-1] <= used.entering(run.schedule.cycles)


@pytest.mark.parametrize("form, first", [("dramsim3", (b"0x", b"READ")), ("ramulator2", (b"LD", b"0x"))])
def test_lines_are_as_the_simulators_read_them(run, form, first):
    text = b"".join(dram_trace.lines(run.lowered.program, run.schedule, memory.memory(run.hardware), form))
    line = text.splitlines()[0].split()
    assert line[0].startswith(first[0]) and line[1].startswith(first[1])
    assert len(line) == (3 if form == "dramsim3" else 2)


def test_the_command_writes_the_file(tmp_path):
    path = tmp_path / "out.trc"
    arguments = ["run", "tiny-cnn", "--dram-trace", str(path)]
    result = CliRunner().invoke(app, [*arguments, "--set", "dram.model=commands"])
    assert result.exit_code == 0, result.output
    assert path.read_text().startswith("0x")
    path.unlink()
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code != 0 and isinstance(refused.exception, ConfigError)
    assert "--set dram.model=commands" in str(refused.exception) and not path.exists()


def test_without_ramulator_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ramulator", None)
    with pytest.raises(NpusimError, match="'ramulator' is not installed"):
        dram_trace.replay("x.trc", "ddr4-2400")
    with pytest.raises(NpusimError, match="ddr4-2400"):
        dram_trace.replay("x.trc", "ddr4-2401")


def test_the_adapter_builds_what_ramulator_documents(monkeypatch):
    made = []

    def part(kind):
        class Part:
            def __init__(self, **keys):
                made.append((kind, keys))

        return Part

    class Simulation:
        def __init__(self, frontend, system):
            self.ran, self.stats = False, {}

        def run(self):
            self.stats = {"memory_system": {"controller": {"cycles": 7}}}

    names = {"controller": ["GenericDDR"], "dram": ["DDR4"], "scheduler": ["FRFCFSRowHit"],
             "refresh_manager": ["AllBank"], "row_policy": ["Open"], "addr_mapper": ["RoBaRaCoCh"],
             "memory_system": ["GenericDRAM"], "channel_mapper": ["CacheLineInterleave"],
             "frontend": ["LoadStoreTrace"]}  # fmt: skip
    spaces = {space: SimpleNamespace(**{n: part(n) for n in found}) for space, found in names.items()}
    monkeypatch.setitem(sys.modules, "ramulator", SimpleNamespace(Simulation=Simulation, **spaces))
    assert dram_trace.replay("x.trc", "ddr4-2400", 2)["memory_system"]["controller"]["cycles"] == 7
    assert [kind for kind, _ in made].count("GenericDDR") == 2
    assert ("LoadStoreTrace", {"clock_ratio": 1, "path": "x.trc"}) in made
