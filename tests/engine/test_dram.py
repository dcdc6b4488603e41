"""The DRAM model: every constraint, hand-computed timelines, independence of call cutting, and measured rows."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from npusim.engine import _dram_state as st
from npusim.engine.dram import Dram
from npusim.engine.dram_config import COMMANDS, Constraint, DramConfig
from npusim.engine.dram_standards import load_standard, standards
from npusim.errors import CatalogueError, ConfigError
from npusim.validate.dram import find_config, summarise, validate_dram
from npusim.validate.dram_readers import read_dramsim3
from npusim.validate.dram_streams import bursts, digest

DATA = Path(__file__).parents[1] / "data" / "dram"
VALIDATION = Path(__file__).parents[2] / "validation"


def dram(name: str = "ddr4-3200", controller: str = "dramsim3-like", **kw: object) -> Dram:
    return Dram(load_standard(name, controller, **kw), requesters=3)  # type: ignore[arg-type]


def quiet(config: DramConfig) -> DramConfig:
    """Without refresh, so that hand-computed times hold."""
    return replace(config, refresh=replace(config.refresh, interval=0))


def banks_of(config: DramConfig, scope: str) -> int:
    """A bank that shares exactly `scope` with bank 0."""
    per_rank = config.groups * config.banks_per_group
    return {"bank": 0, "group": 1, "rank": config.banks_per_group, "other_rank": per_rank}[scope]


def controllers(name: str) -> list[DramConfig]:
    """Two ranks of `name` behind controllers that between them issue every command."""
    open_page, per_bank = load_standard(name, ranks=2), load_standard(name, ranks=2, per_bank_refresh=True)
    close_page = replace(open_page, policy=replace(open_page.policy, close_page=True))
    return [open_page, per_bank, close_page, load_standard(name, "ramulator-like", ranks=2)]


def test_every_command_is_issued_by_some_controller() -> None:
    assert {c for config in controllers("ddr4-3200") for c in config.issued()} == set(COMMANDS)


class Channel:
    """The first channel of a fresh memory system, banks by their number."""

    def __init__(self, config: DramConfig) -> None:
        state = Dram(config).state
        self.ref, self.val = state.ref[0], state.val[0]

    def issue(self, bank: int, command: str, at: int) -> None:
        st.constrain(self.ref, self.val, st.bank(self.ref, bank), COMMANDS[command], at)

    def earliest(self, bank: int, command: str) -> int:
        return int(st.earliest(self.ref, self.val, st.bank(self.ref, bank), COMMANDS[command]))

    def refresh(self, bank: int, at: int) -> None:
        st.issue_refresh(self.ref, self.val, st.bank(self.ref, bank), at)

    def next_to_refresh(self) -> range:
        unit = st.refresh_unit(self.ref, self.val)
        first, last = ((int(b) - int(self.ref[st.BANKS])) // st.STRIDE for b in unit)
        return range(first, last)


@pytest.mark.parametrize("config", [c for name in standards() for c in controllers(name)])
def test_every_constraint_is_legal_at_t_and_not_before(config: DramConfig) -> None:
    table = config.delays()
    wider = {"bank": ("bank", "group", "rank"), "group": ("group", "rank"), "rank": ("rank",)}
    for c in config.constraints:
        if not {c.before, c.after} <= set(config.issued()):
            continue
        if (c.scope == "group" and config.banks_per_group == 1) or (c.scope == "rank" and config.groups == 1):
            continue
        channel = Channel(config)
        channel.issue(0, c.before, 1000)
        # A pair that shares a bank also shares its group and rank, so the longest of these holds.
        scopes = [x for x in wider.get(c.scope, (c.scope,)) if "rank" in x or c.before not in ("REF", "PREA")]
        want = 1000 + max(table.get((x, c.before, c.after), st.NEVER) for x in scopes)
        assert channel.earliest(banks_of(config, c.scope), c.after) == want, c


def test_fifth_activate_waits_for_the_window() -> None:
    # Five activates to five groups, 4 clocks apart (tRRD_S): the fifth waits for 34 clocks (tFAW) after the first.
    config = load_standard("ddr4-3200")
    channel = Channel(config)
    for i, bank in enumerate((0, 4, 8, 12)):
        channel.issue(bank, "ACT", 100 + 4 * i)
    assert channel.earliest(1, "ACT") == 134
    assert config.faw == 34


@pytest.mark.parametrize("controller", ["dramsim3-like", "ramulator-like"])
def test_a_single_read_takes_activate_read_and_burst(controller: str) -> None:
    # Ramulator: accepted at 0, ACT at 0, RD at 22 (tRCD), data until 22 + 22 (CL) + 4 (burst) = 48.
    # DRAMsim3: the same a clock later, because the bank queue takes the transaction first.
    config = quiet(load_standard("ddr4-3200", controller))
    d = Dram(config)
    x = d.submit(0, 0, 0, 64)
    assert d.drain() == [(x, 49 if controller == "dramsim3-like" else 48)]
    assert d.result().counts == {"ACT": 1, "PRE": 0, "RD": 1, "WR": 0, "REF": 0, "REFB": 0}


def test_a_row_conflict_pays_restore_and_precharge() -> None:
    # ACT at 1, RD at 23; PRE at max(1 + tRAS 52, 23 + tRTP 12) = 53, ACT at 75, RD at 97, data at 97 + 26 = 123.
    d = Dram(quiet(load_standard("ddr4-3200", address_map="co-bg-ba-ro")))
    first = d.submit(0, 0, 0, 64)
    other = d.submit(0, 1, 8192 * 16, 64)
    assert d.drain() == [(first, 49), (other, 123)]


def test_bank_groups_decide_the_rate_of_a_stream() -> None:
    # 64 bursts of a row: 8 clocks apart in one bank group (tCCD_L), 4 when groups alternate (tCCD_S).
    ends = [max(t for _, t in _stream(order)) for order in ("co-bg-ba-ro", "bg-co-ba-ro")]
    assert ends[0] - 49 == 63 * 8
    assert ends[1] < 49 + 63 * 4 + 3 * 8


def _stream(order: str) -> list[tuple[int, int]]:
    d = Dram(quiet(load_standard("ddr4-3200", address_map=order)))
    d.submit(0, 0, 0, 4096)
    return d.drain()


def test_write_to_read_turnaround_separates_the_directions() -> None:
    # Same row. WR at 23; RD no earlier than WR + CWL 16 + burst 4 + tWTR_L 12 = 55 (one bank group).
    config = replace(quiet(load_standard("ddr4-3200", "ramulator-like", address_map="co-bg-ba-ro")))
    channel = Channel(config)
    channel.issue(0, "WR", 23)
    assert channel.earliest(0, "RD") == 55


def test_refresh_closes_rows_and_is_counted() -> None:
    d = dram()
    d.submit(0, 0, 0, 64)
    assert d.advance(3 * 12480 + 100) != []
    assert d.result().counts["REF"] == 3
    assert d.result().counts["PRE"] == 1


def test_per_bank_refresh_leaves_other_banks_alone() -> None:
    d = dram("lpddr4-3200", per_bank_refresh=True)
    d.submit(0, 0, 0, 1 << 20)
    d.drain()
    run = d.result()
    assert run.counts["REF"] == 0
    assert run.counts["REFB"] == pytest.approx(run.cycles / (6246 // 8), abs=1)


def test_a_per_bank_refresh_of_dramsim3_holds_back_the_other_banks_only(tmp_path: Path) -> None:
    # src/timing.cc: REFRESH_BANK constrains ACTIVATE of the other banks by tRFC = 560 clocks, its own bank by nothing.
    text = (DATA / "configs" / "ddr4_3200_col.ini").read_text()
    path = tmp_path / "bank.ini"
    path.write_text(text.replace("RANK_LEVEL_STAGGERED", "BANK_LEVEL_STAGGERED"))
    channel = Channel(read_dramsim3(path))
    order = []
    for _ in range(6):
        (bank,) = channel.next_to_refresh()
        order.append(bank)
        channel.refresh(bank, 100)
    assert order == [0, 4, 8, 12, 1, 5]
    fresh = Channel(read_dramsim3(path))
    fresh.refresh(0, 100)
    assert fresh.earliest(0, "ACT") <= 100
    assert [fresh.earliest(bank, "ACT") for bank in (1, 4, 15)] == [660, 660, 660]


def test_outstanding_limit_serialises_a_requester() -> None:
    config = quiet(load_standard("ddr4-3200", "ramulator-like"))
    free, held = (Dram(config, outstanding=n) for n in (0, 1))
    for d in (free, held):
        d.submit(0, 0, 0, 64 * 64)
    assert held.drain()[0][1] > 5 * free.drain()[0][1]


def test_oldest_transfer_in_program_order_is_offered_first() -> None:
    d = Dram(quiet(load_standard("ddr4-3200", "ramulator-like")), requesters=2)
    late = d.submit(0, 7, 0, 64 * 256)
    early = d.submit(1, 3, 1 << 24, 64 * 256)
    assert [x for x, _ in d.drain()] == [early, late]


def test_strided_transfer_counts_partial_bursts_whole() -> None:
    # 3 rows of 100 bytes, 1000 bytes apart: bytes 0..99, 1000..1099, 2000..2099 touch 2, 3 and 2 bursts of 64.
    d = dram()
    d.submit(0, 0, 0, 100, rows=3, stride=1000)
    d.drain()
    assert d.result().counts["RD"] == 7


@settings(max_examples=15, deadline=None)
@given(
    hyp.lists(hyp.tuples(hyp.integers(0, 2), hyp.integers(0, 1 << 22), hyp.integers(1, 3000), hyp.booleans(),
                         hyp.integers(0, 400)), min_size=1, max_size=8),
    hyp.sampled_from([("ddr4-2400", "dramsim3-like", 2), ("lpddr5-6400", "ramulator-like", 1),
                      ("hbm2-2000", "ramulator-like", 2), ("hbm2-2000", "dramsim3-like", 2)]),
    hyp.integers(1, 977),
)  # fmt: skip
def test_any_cutting_into_calls_gives_the_same_run(
    transfers: list[tuple[int, int, int, bool, int]], kind: tuple[str, str, int], step: int
) -> None:
    config = load_standard(kind[0], kind[1], ranks=kind[2])
    runs = []
    for cut in (1, step, 1 << 40):
        d = Dram(config, requesters=3, outstanding=9)
        done = []
        now = 0
        for order, (who, addr, size, write, _gap) in enumerate(transfers):
            while now < (at := sum(t[4] for t in transfers[: order + 1])):
                now = min(now + cut, at)
                done += d.advance(now)
            d.submit(who, order, addr, size, write=write)
        while now < 30000:
            now = min(now + cut, 30000)
            done += d.advance(now)
        runs.append((done, [a.copy() for a in d.state]))
        assert len(done) == len(transfers)
    for done, state in runs[1:]:
        assert done == runs[0][0]
        for name, a, b in zip(st.DramState._fields, state, runs[0][1], strict=True):
            # The list of finished transfers is emptied by whoever reads it.
            assert name == "done" or np.array_equal(a, b), name


def test_next_event_is_never_later_than_what_happens() -> None:
    d = dram()
    d.submit(0, 0, 0, 4096)
    while True:
        at = d.next_event()
        assert d.advance(at - 1) == []
        if d.advance(at + 1):
            break


def test_energy_is_the_sum_of_its_commands() -> None:
    # DDR4-3200: an activate is 1.2 V * 8 devices * 0.625 ns * (57 * 74 - 52 * 52 - 37 * 22) mA = 4224 pJ.
    d = dram()
    d.submit(0, 0, 0, 1 << 16)
    d.drain()
    run = d.result()
    assert run.energy_pj is not None
    assert run.energy_pj["act"] == pytest.approx(run.counts["ACT"] * 1.2 * 8 * 0.625 * (57 * 74 - 52 * 52 - 37 * 22))
    assert run.energy_pj["read"] == pytest.approx(1024 * 1.2 * 8 * 0.625 * (168 - 52) * 4)


def test_the_kernel_runs_as_plain_python() -> None:
    code = (
        "from npusim.engine.dram import Dram\nfrom npusim.engine.dram_standards import load_standard\n"
        "for n, c in (('ddr4-2400', 'dramsim3-like'), ('lpddr5-6400', 'ramulator-like')):\n"
        "    d = Dram(load_standard(n, c), requesters=2)\n"
        "    d.submit(0, 0, 0, 4096, rows=3, stride=100000); d.submit(1, 1, 1 << 22, 3000, write=True)\n"
        "    print(d.drain(), d.result())\n"
    )
    out = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_DISABLE_JIT": flag}, check=True,
                       capture_output=True, text=True).stdout
        for flag in ("0", "1")
    ]  # fmt: skip
    assert out[0] == out[1] != ""


def test_contradictions_name_both_keys(tmp_path: Path) -> None:
    text = (Path(load_standard.__code__.co_filename).parents[1] / "data" / "dram" / "ddr4-3200.toml").read_text()
    bad = tmp_path / "bad.toml"
    bad.write_text(text.replace("ras = 52 ", "ras = 20 ").replace("burst_length = 8 ", "burst_length = 2048 "))
    with pytest.raises(ConfigError) as e:
        load_standard(str(bad))
    assert "timing.ras = 20 is less than timing.rcd_rd = 22" in str(e.value)
    assert "organisation.burst_length = 2048 is longer than a row of organisation.columns = 1024" in str(e.value)
    with pytest.raises(CatalogueError, match="did you mean 'ddr4-3200'"):
        load_standard("ddr4-320")
    with pytest.raises(ConfigError, match=r"refresh\.per_bank needs policy\.kind = 'bank_queues', not 'pools'"):
        Dram(load_standard("ddr4-3200", "ramulator-like", per_bank_refresh=True))
    with pytest.raises(ConfigError, match="ranks = 3: the address map needs a power of two"):
        load_standard("ddr4-3200", ranks=3)
    with pytest.raises(ConfigError, match="does not hold all bits of bank"):
        load_standard("ddr4-3200", address_map="bg-co-ra-ch-ro")
    short = replace(load_standard("ddr4-3200"), constraints=(
        Constraint("bank", "ACT", "ACT", 60), Constraint("bank", "ACT", "PRE", 52), Constraint("bank", "PRE", "ACT",
        22), ))  # fmt: skip
    assert short.verify() == ["tRC = 60 is less than tRAS = 52 + tRP = 22"]


def test_streams_are_generated_as_measured() -> None:
    address, write = bursts({"kind": "streams", "bases": [0], "chunk": 4096, "writes": [0]}, 1, 8 << 20, 64)
    assert digest(address, write) == "ffd61182339b44d6"


def test_unknown_configuration_lists_the_files() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file for 'ddr9'.*ddr4_3200_col\.ini"):
        find_config("ddr9", "", DATA / "configs")


@pytest.fixture(scope="module")
def subset():  # type: ignore[no-untyped-def]
    return validate_dram(DATA / "measured_subset.csv", DATA / "configs")


def test_measured_rows_agree(subset) -> None:  # type: ignore[no-untyped-def]
    # The bounds asked for are 0.5 % (mean) and 3 % (max) of the cycles; the policies are modelled to the clock.
    assert subset.trace_ok.all()
    assert (subset.cycles_simulated - subset.cycles_measured).abs().max() <= 1
    assert (subset.acts_simulated == subset.acts_measured)[subset.acts_measured.notna()].all()
    assert subset.row_hit_rate_error.abs().max() < 1e-5
    assert subset.latency_error.abs().max() < 1e-3
    assert subset.energy_error.abs().max() < 1e-5


def test_summary_has_a_line_per_simulator(subset) -> None:  # type: ignore[no-untyped-def]
    assert set(summarise(subset).sim.str.split("-").str[0]) == {"DRAMsim3", "Ramulator", "DRAMSys"}


@pytest.mark.parametrize(("simulator", "rows", "later"), [("DRAMsim3-varied", 40, 0), ("Ramulator-2.1-varied", 18, 1)])
def test_configurations_of_any_shape_agree(simulator: str, rows: int, later: int) -> None:
    # Ramulator's cycles end with the last answer, this model's with the clock after it.
    folder = VALIDATION / "dram"
    table = validate_dram(folder / "measured.csv", folder / "configs", select="^var_")
    table = table[table.sim == simulator]
    assert len(table) == rows
    assert table.trace_ok.all()
    assert (table.cycles_simulated == table.cycles_measured + later).all()
    counted = table[table.counted]
    assert len(counted) > 0.6 * rows
    assert (counted.acts_simulated == counted.acts_measured).all()
    assert counted.row_hit_rate_error.abs().max() < 1e-5
    assert counted.latency_error.abs().max() < 1e-5
    assert not (counted.energy_error.abs() > 1e-5).any()  # Ramulator gives none


@pytest.mark.slow
@pytest.mark.validation
def test_all_measured_rows_agree() -> None:
    folder = VALIDATION / "dram"
    table = validate_dram(folder / "measured.csv", folder / "configs")
    summary = summarise(table)
    assert table.trace_ok.all()
    counted = table[table.counted]
    assert (counted.cycles_simulated - counted.cycles_measured).abs().max() <= 1
    assert summary.latency_max.max() < 1e-3
