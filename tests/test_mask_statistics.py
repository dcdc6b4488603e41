"""Statistics of masks against sums over every tile."""

import numpy as np
import pytest

from npusim.structure import statistics


@pytest.mark.parametrize("shape", [(33, 7, 3, 3), (16, 16, 1, 1), (5, 40, 3, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.4, 1.0])
def test_statistics_are_those_of_the_tiles(shape, density):
    bits = np.random.default_rng(1).random(shape) < density
    matrix = bits.reshape(shape[0], -1)
    tiles = [matrix[i : i + 4, j : j + 6] for i in range(0, matrix.shape[0], 4) for j in range(0, matrix.shape[1], 6)]
    live = [tile for tile in tiles if tile.any()]
    starts = sum(int(row[0]) + int((row[1:] & ~row[:-1]).sum()) for row in matrix)
    found = statistics(bits, 4, 6)
    assert found.density == pytest.approx(matrix.mean())
    assert found.tile_density_min == pytest.approx(min(tile.mean() for tile in tiles))
    assert found.tile_density_max == pytest.approx(max(tile.mean() for tile in tiles))
    assert found.empty_tiles == pytest.approx(1 - len(live) / len(tiles))
    assert found.live_rows == pytest.approx(np.mean([tile.any(axis=1).mean() for tile in tiles]))
    assert found.live_columns == pytest.approx(np.mean([tile.any(axis=0).mean() for tile in tiles]))
    assert found.run_length == pytest.approx(matrix.sum() / starts if starts else 0)
    imbalances = [tile.sum(axis=1).max() / tile.sum(axis=1).mean() for tile in live]
    assert found.imbalance == pytest.approx(np.mean(imbalances) if live else 0)
