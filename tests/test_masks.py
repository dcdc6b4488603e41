"""Bit-packed masks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npusim.masks import Mask

BITS = hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))


@given(BITS)
def test_round_trip_and_statistics(bits):
    mask = Mask.of(bits)
    assert np.array_equal(mask.bits(), bits) and mask.shape == bits.shape
    assert (mask.size, mask.count) == (bits.size, int(bits.sum()))
    assert mask.density == pytest.approx(bits.mean())
    assert np.array_equal(mask.matrix(), bits.reshape(bits.shape[0], -1))


@given(BITS, st.integers(0, 10**6))
def test_equal_means_equal_bits(bits, where):
    other = bits.copy()
    assert Mask.of(bits) == Mask.of(other) and hash(Mask.of(bits)) == hash(Mask.of(other))
    other.reshape(-1)[where % bits.size] ^= True
    assert Mask.of(bits) != Mask.of(other)


def test_any_non_zero_value_is_selected():
    assert Mask.of(np.array([0, 2, -1, 256, 0.5])).bits().tolist() == [0, 1, 1, 1, 1]


def test_shape_is_part_of_the_value_and_bits_cannot_change():
    mask = Mask.of(np.ones((2, 6)))
    assert mask != Mask.of(np.ones((3, 4))) and mask.digest() != Mask.of(np.ones(12)).digest()
    with pytest.raises(ValueError, match="read-only"):
        mask.packed[0] = 0
    assert repr(mask) == "Mask(2x6, 12 of 12 selected)"


def test_copies_and_empty_masks():
    mask = Mask.of(np.arange(10) % 3)
    assert pickle.loads(pickle.dumps(mask)) == mask == copy.deepcopy(mask)
    assert Mask.of(np.zeros((0, 3))).density == 0.0
