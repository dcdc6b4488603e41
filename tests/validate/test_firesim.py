"""Whole layers on Gemmini behind a cache: the bounds, and what the parts must do."""

from pathlib import Path

import numpy as np
import pytest

from npusim.errors import ConfigError
from npusim.validate import firesim
from npusim.validate.gemmini_model import Conv, Gemmini, cached_memory, conv_layer, run

DATA = Path(__file__).parents[2] / "validation" / "firesim" / "layers.csv"
GEMMINI = Gemmini(config_commands=firesim.CONFIG_CYCLES)


@pytest.mark.slow
def test_errors_are_within_the_bounds():
    found = firesim.validate(DATA)
    (summary,) = found.summaries
    assert summary.simulated == summary.rows == 54
    assert summary.mean_pct < 18
    assert found.spearman > 0.98
    assert found.held


def test_short_layers(tmp_path):
    header, *lines = DATA.read_text().splitlines()
    path = tmp_path / "short.csv"
    path.write_text("\n".join([header, *(lines[n] for n in (5, 13, 18, 20, 21, 22, 41, 50))]) + "\n")
    found = firesim.validate(path)
    assert all(row.simulated is not None for row in found.rows)
    assert found.summaries[0].mean_pct < 20
    assert found.spearman > 0.95


def test_a_convolution_moves_its_pixels_once_per_tile():
    # One tile: 6x6 pixels of 16 bytes, 9 taps x 16 channels of 16 bytes, one bias row of 64 bytes for 4 rows of pixels.
    layer = conv_layer(Conv(16, 16, 4, 4, 3, 3, 1, 0, (4, 4, 16, 16)))
    result = run(layer, GEMMINI, cached_memory(firesim.MEMORY, layer))
    assert result.read_bytes == 36 * 16 + 144 * 16 + 4 * 64
    assert result.written_bytes == 16 * 16
    # 9 blocks of weights, 4 rows of 4 pixels each: 3 of 4 cycles and, with the next weights behind it, one of 16.
    assert result.rows_fired >= 9 * (3 * 4 + 16)


def test_a_part_of_a_layer_stands_for_the_whole():
    layer = conv_layer(Conv(64, 64, 40, 40, 3, 3, 1, 1, (20, 20, 16, 64)))
    whole = firesim.layer_cycles(layer, GEMMINI, firesim.MEMORY, loops=1000)
    part = firesim.layer_cycles(layer, GEMMINI, firesim.MEMORY)
    assert part == pytest.approx(whole, rel=0.05)


def test_rank_correlation_shares_ranks():
    assert firesim.rank_correlation([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert firesim.rank_correlation([(1, 1), (2, 2), (2, 3), (3, 4)]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_wrong_cells_are_listed(tmp_path):
    header, first, *_ = DATA.read_text().splitlines()
    path = tmp_path / "bad.csv"
    path.write_text(f"{header}\n{first.replace('3_3_23_22_1_16_1', '3_3')}\n{first.replace('570', '0', 1)}\n")
    with pytest.raises(ConfigError) as error:
        firesim.validate(path)
    assert "line 2: dse.auto_tiling = '3_3': must be R_S_P_Q_C_K_N" in str(error.value)
    assert "line 3: prob.P = '0'" in str(error.value)


def test_a_tile_that_does_not_fit_is_not_simulated(tmp_path):
    header, first, *_ = DATA.read_text().splitlines()
    path = tmp_path / "large.csv"
    path.write_text(f"{header}\n{first.replace('3_3_23_22_1_16_1', '3_3_23_23_1_16_1')}\n")
    (row,) = firesim.validate(path).rows
    assert row.simulated is None
    assert "does not fit" in row.note
