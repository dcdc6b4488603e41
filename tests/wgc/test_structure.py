"""Mask structures: groups, generation, coarsening, statistics."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.dataflow import MASK_STRUCTURES
from npusim.errors import NpusimError
from npusim.structure import Structure, coarsen, generate, statistics

SHAPE = (8, 6, 3, 3)
SIZES = {"element": 1, "kernel": 9, "output_channel": 54, "input_channel": 72, "tap": 48, "column_set": 4, "layer": 432}


@pytest.mark.parametrize("name", [name for name in MASK_STRUCTURES if name != "n_m"])
def test_groups_have_their_size(name):
    groups = Structure(name, rows=4).groups(SHAPE)
    assert set(np.bincount(groups.ravel())) == {SIZES[name]}


@pytest.mark.parametrize("name", [name for name in MASK_STRUCTURES if name not in ("n_m", "layer")])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_generated_masks_are_whole_groups_at_their_density(name, density):
    structure = Structure(name, rows=4)
    bits, groups = generate(SHAPE, structure, density, 3), structure.groups(SHAPE)
    selected, size = np.bincount(groups.ravel(), bits.ravel()), np.bincount(groups.ravel())
    assert set(selected) <= {0, size[0]}
    assert (selected > 0).sum() == round(size.size * density)
    np.testing.assert_array_equal(bits, generate(SHAPE, structure, density, 3))


def test_n_of_m_selects_n_in_every_neighbourhood():
    bits = generate((4, 8, 2, 2), Structure("n_m", m=8), 0.25, 0)
    assert (bits.reshape(4, 4, 8).sum(axis=2) == 2).all()


@pytest.mark.parametrize("name", [name for name in MASK_STRUCTURES if name != "n_m"])
def test_coarsening_rules(name):
    structure = Structure(name, rows=4)
    bits = generate(SHAPE, Structure("element"), 0.3, 1)
    everything, most = coarsen(bits, structure, "any"), coarsen(bits, structure, "majority")
    equal = coarsen(bits, structure, "equal_count")
    assert not (bits & ~everything).any()
    assert not (most & ~everything).any()
    assert abs(int(equal.sum()) - int(bits.sum())) <= SIZES[name] / 2
    # A mask of a structure is its own coarsening.
    whole = generate(SHAPE, structure, 0.5, 2)
    for rule in ("any", "majority", "equal_count"):
        np.testing.assert_array_equal(coarsen(whole, structure, rule), whole)


def test_equal_count_takes_the_highest_scores():
    scores = np.arange(4.0).reshape(4, 1, 1, 1)
    bits = np.array([1, 1, 0, 0], bool).reshape(4, 1, 1, 1)
    assert coarsen(bits, Structure("output_channel"), "equal_count", scores).ravel().tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_statistics_by_hand():
    # Tiles of 2 x 2: full; empty; one of four (row 2); two in row 3 and none in row 2.
    bits = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], bool).reshape(4, 4, 1, 1)
    found = statistics(bits, 2, 2)
    assert (found.density, found.tile_density_min, found.tile_density_max, found.empty_tiles) == (7 / 16, 0, 1, 0.25)
    assert (found.live_rows, found.live_columns) == ((1 + 0 + 0.5 + 0.5) / 4, (1 + 0 + 0.5 + 1) / 4)
    assert found.run_length == 7 / 4
    # Fullest over mean row: 2/2, 1/0.5, 2/1.
    assert found.imbalance == pytest.approx((1 + 2 + 2) / 3)


@pytest.mark.parametrize("call", [
    lambda: Structure("elemnt"),
    lambda: coarsen(np.ones(SHAPE, bool), Structure("kernel"), "most"),
    lambda: generate(SHAPE, Structure("kernel"), 1.5, 0),
])  # fmt: skip
def test_mistakes_are_named(call):
    with pytest.raises(NpusimError):
        call()
