"""What `npusim validate dram` says about configurations and measurements that it cannot use."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from npusim.engine.dram import Dram
from npusim.engine.dram_config import DramConfig
from npusim.errors import ConfigError
from npusim.validate.dram import find_config, read_rows
from npusim.validate.dram_readers import read_dramsim3, read_dramsys, read_ramulator, read_yaml
from npusim.validate.dram_streams import check

DATA = Path(__file__).parents[1] / "data" / "dram"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows = 65536", "rows = 60000", "[dram_structure]: rows = 60000 must be a power of two"),
        ("protocol = DDR4", "protocol = DDR7", "[dram_structure]: protocol = DDR7 is not modelled; only DDR3, DDR4"),
        ("BL = 8", "BL = 2048", "BL = 2048 must be from 2 to the columns of a row, columns = 1024"),
        (
            "rochrababgco",
            "rochrababgba",
            "address_mapping = rochrababgba must hold each of ch, ra, bg, ba, ro, co once",
        ),
        ("PER_BANK", "PER_RANK", "queue_structure = PER_RANK is not modelled; only PER_BANK"),
        ("tRCD = 22", "tRCD = 13.75", "[timing]: tRCD = 13.75 must be a whole number, 0 or more"),
        ("tCCD_L = 8", "tCCD_L = 2", "tCCD_L = 2 must not be less than tCCD_S = 4"),
        ("RANK_LEVEL_STAGGERED", "NONE", "refresh_policy = NONE is not modelled; only RANK_LEVEL_STAGGERED"),
        ("OPEN_PAGE", "ADAPTIVE", "row_buf_policy = ADAPTIVE is not modelled; only OPEN_PAGE, CLOSE_PAGE"),
        ("tREFI = 12480", "tREFI = 0", "[timing]: tREFI = 0 leaves no time between refreshes (1 ranks)"),
        ("trans_queue_size = 32", "trans_queue_size = 0", "trans_queue_size = 0 must be a whole number, 1 or more"),
        ("bus_width = 64", "bus_width = 4", "bus_width = 4 must be 8 or more and at least device_width = 8"),
        ("channel_size = 8192", "channel_size = 24576", "channel_size = 24576 must be a power of two of ranks"),
        ("VDD = 1.2", "VDD = low", "[power]: VDD = low must be a number, 0 or more"),
        ("CL = 22", "CL = 22\nCL = 23", "option 'cl' in section 'timing' already exists"),
    ],
)
def test_a_dramsim3_configuration_names_key_and_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (DATA / "configs" / "ddr4_3200_col.ini").read_text()
    assert old in text
    path = tmp_path / "mine.ini"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_dramsim3(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.ini")


def test_a_key_without_a_value_has_its_default(tmp_path: Path) -> None:
    text = (DATA / "configs" / "ddr4_3200_col.ini").read_text()
    path = tmp_path / "mine.ini"
    path.write_text(text.replace("tFAW = 34", "tFAW = "))
    assert read_dramsim3(path).faw == 50


def ramulator(tmp_path: Path, standard: str, old: str, new: str) -> DramConfig:
    """One of Ramulator's system descriptions with `old` replaced wherever it stands."""
    (source,) = (DATA / "configs").glob(f"ram_{standard}_*.yaml")
    assert old in source.read_text()
    (tmp_path / "ram.yaml").write_text(source.read_text().replace(old, new))
    address_map = {"ddr4": "bg2-co7-ba2-ro16", "hbm2": "co5-ch3-bg2-ba2-ra1-ro14", "lp5": "co6-ch1-bg2-ba2-ro16"}
    return read_ramulator(tmp_path / "ram.yaml", address_map[standard])


@pytest.mark.parametrize(
    ("standard", "old", "new", "message"),
    [
        ("ddr4", "PassThroughAddrMapper", "RoBaRaCoCh", "addr_mapper 'RoBaRaCoCh' is not modelled; only PassThrough"),
        ("ddr4", "PassThroughChannelMapper", "Lowest", "channel_mapper 'Lowest' is not modelled"),
        ("ddr4", "scatter_interval: 0", "scatter_interval: 100", "scatter_interval 100 is not modelled; only 0"),
        ("ddr4", "wr_low_watermark: 0.2", "wr_low_watermark: 0", "wr_low_watermark = 0: must be above 0, at most"),
        ("ddr4", "wr_low_watermark: 0.2", "wr_low_watermark: 0.9", "wr_low_watermark = 0.9: must be above 0, at most"),
        ("ddr4", "FRFCFS-RowHit", "FCFS", "scheduler 'FCFS' is not modelled; only FRFCFS-RowHit"),
        ("lp5", "impl: LPDDR5\n", "impl: GenericDDR\n", "dram impl 'GenericDDR'; known: DDR4, LPDDR5, HBM2"),
    ],
)
def test_a_ramulator_configuration_is_refused_where_it_is_not_modelled(
    tmp_path: Path, standard: str, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ramulator(tmp_path, standard, old, new)
    assert str(caught.value).startswith("ram.yaml: ") and message in str(caught.value)


def test_watermarks_are_multiplied_in_single_precision(tmp_path: Path) -> None:
    # As float32, 0.15 * 200 entries is a little more than 30: the 31st is the first that is not below it.
    (source,) = (DATA / "configs").glob("ram_ddr4_*.yaml")
    text = source.read_text().replace("write_buffer_size: 32", "write_buffer_size: 200")
    (tmp_path / "ram.yaml").write_text(text.replace("wr_low_watermark: 0.2", "wr_low_watermark: 0.15"))
    assert read_ramulator(tmp_path / "ram.yaml", "bg2-co7-ba2-ro16").policy.drain_low == 31


def test_lists_in_brackets_are_read() -> None:
    assert read_yaml("a:\n  b: [1, 2, -3]\n  c: []\n") == {"a": {"b": [1, 2, -3], "c": []}}


def test_refreshes_that_leave_no_time_are_refused(tmp_path: Path) -> None:
    text = (DATA / "configs" / "ddr4_3200_col.ini").read_text()
    path = tmp_path / "mine.ini"
    path.write_text(text.replace("tREFI = 12480", "tREFI = 500"))
    with pytest.raises(ConfigError, match="a refresh is due every 500 clocks and takes 560: no time would be left"):
        Dram(read_dramsim3(path))


def test_files_of_another_form_are_named(tmp_path: Path) -> None:
    (tmp_path / "ram.yaml").write_text("memory_system:\n  controllers:\n  - dram:\n      impl: DDR4\n")
    with pytest.raises(ConfigError, match=r"ram\.yaml: not a system description of Ramulator 2\.1: KeyError"):
        read_ramulator(tmp_path / "ram.yaml", "bg2-co7-ba2-ro16")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.json, x\.json, x\.json is not a configuration of DRAMSys 5"):
        read_dramsys(*3 * [tmp_path / "x.json"])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"params": '{"kind":'}, "line 2: params = '{\"kind\":': Expecting value"),
        ({"params": '{"kind":"zig"}'}, "stream kind 'zig'; known: streams, tile, gather"),
        ({"target_MiB": "-1"}, "line 2: target_MiB = '-1': must be a number, more than 0"),
        ({"acts": "many"}, "line 2: acts = 'many': must be a number or empty"),
        ({"inj_per_clk": "65"}, "line 2: inj_per_clk = 65: must be 64 or less"),
        ({"inject": "all"}, "line 2: inject = 'all': must be hol or perch"),
        ({"inj_per_clk": "0"}, "line 2: inj_per_clk = '0': must be a whole number of 1 or more"),
        ({"cycles": ""}, "line 2: cycles: missing"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(tmp_path: Path, cells: dict[str, str], message: str) -> None:
    with (DATA / "measured_subset.csv").open(newline="") as file:
        row = next(iter(csv.DictReader(file))) | cells
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kind": "streams", "bases": [0], "chunk": 0, "writes": [0]}, "chunk = 0 must be a whole number from 1"),
        ({"kind": "streams", "bases": [0], "chunk": 64, "writes": [0, 1]}, "bases and writes must be lists of equal"),
        ({"kind": "tile", "stride": 64, "tw": 64, "write": 0}, "th = None must be a whole number"),
        ({"kind": "tile", "stride": 64, "tw": 64, "th": 1, "write": 2}, "write = 2 must be 0 or 1"),
        ({"kind": "gather", "row": 64, "density": 0, "order": "asc"}, "density = 0 must be a share"),
        ({"kind": "gather", "row": 64, "density": 0.5, "order": "up"}, "order = 'up' must be asc or shuf"),
        ({"kind": "random", "gran": 64, "wfrac": 1.5}, "wfrac = 1.5 must be a share"),
        (["streams"], "stream kind \\['streams'\\]; known"),
    ],
)
def test_a_stream_that_is_none_names_the_key(params: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(params)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (0, "read queue = 0: must be a whole number from 1 to 4096"),
        (2**70, "bank queue = 11805916207174113034: must be a whole number from 1"),
    ],
)
def test_queues_that_hold_nothing_or_too_much_are_refused(tmp_path: Path, size: int, problem: str) -> None:
    """Nothing would ever enter the one, and no memory hold the other."""
    for path in (DATA / "configs").glob("dramsys*.json"):
        text = path.read_text().replace('"RequestBufferSize": 8', f'"RequestBufferSize": {size}')
        (tmp_path / path.name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_config("dramsys_lp4x32_g", "", tmp_path)
    assert problem in str(caught.value)


def test_names_and_maps_of_any_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be letters, digits and _"):
        find_config("ddr" + "9" * 5000, "", tmp_path)
    with pytest.raises(ConfigError, match="must be letters, digits and _"):
        find_config("../ddr4", "", tmp_path)
    config = read_ramulator(DATA / "configs" / "ram_ddr4_3200.yaml", "bg2-co7-ba2-ro10000000000000")
    assert "address_map has more than 62 bits" in config.verify()
