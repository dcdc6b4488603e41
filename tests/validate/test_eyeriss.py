"""Row stationary on the published Eyeriss figures: what is reported is what the mechanism gives."""

from pathlib import Path

import numpy as np
import pytest
from examples import layer_step

from npusim import npu
from npusim.errors import ConfigError
from npusim.graph import Conv
from npusim.mapping.choice import Choice
from npusim.mapping.tiling import Tiling
from npusim.simulation import simulate
from npusim.validate import eyeriss

DATA = Path(__file__).parents[2] / "validation" / "eyeriss" / "alexnet.csv"


def test_one_pass_by_hand():
    # 3x3 on 12 rows: 4*14 = 56 strips; 13 output rows leave 4 sets. K = 16, C = 4: a pass of 16 filters x 4 channels on
    # one set: 16*4*9 = 576 filter words of 2 bytes through 8 bytes per cycle = 144; then 1*16*4*3*13 = 2496.
    step = layer_step(Conv(1, 4, 13, 13, 16, 3, 3, padding=(1, 1)), phases=("forward",))
    whole = Choice(fixed=((("layer", "forward", 0, ""), Tiling(1, 16, 4, 1, 13, 13, False)),))
    run = simulate(step, npu.load("eyeriss"), "row-stationary", choice=whole)
    assert run.array_cycles[0] == 144 + 2496


def test_processing_latency_of_alexnet():
    rows = [row for row in eyeriss.validate(DATA).rows if row.group == "processing latency (ms)"]
    errors = [row.error_pct for row in rows]
    assert len(errors) == 5
    assert np.abs(errors).mean() < 7
    assert np.abs(errors).max() < 15


def test_wrong_cells_are_listed(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(DATA.read_text().replace("227", "-3").replace("39.2", "fast"))
    with pytest.raises(ConfigError) as error:
        eyeriss.validate(path)
    assert "line 2: h = '-3'" in str(error.value)
