# SPDX-License-Identifier: Apache-2.0
"""Free-running indices: distances, positions and spans are right on both sides of 2^32 and of the
ring's end. Method: Hypothesis, with positions that lie around multiples of 2^32; what is computed
is compared with plain counting of bytes. Cannot show: that callers use them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.index import INDEX_MASK, index_of, position_of, spans, used
from ring.layout import RING_SIZE

WRAP = 1 << 32
NEAR_WRAPS = st.builds(lambda wraps, delta: max(wraps * WRAP + delta, 0),
                       st.integers(0, 5), st.integers(-3 * RING_SIZE, 3 * RING_SIZE))
POSITIONS = st.one_of(NEAR_WRAPS, st.integers(0, 1 << 62))
WORDS = st.one_of(st.integers(0, 4096), st.integers(WRAP - 4096, WRAP - 1),
                  st.integers(0, WRAP - 1))


@given(POSITIONS, st.integers(0, WRAP - 1))
def test_distance_does_not_see_the_wrap(position: int, size: int) -> None:
    assert used(index_of(position + size), index_of(position)) == size


@given(WORDS, WORDS)
def test_a_distance_is_the_steps_from_one_to_the_other(prod: int, cons: int) -> None:
    """Whatever two words a page holds: never negative, and back again is the rest of the circle."""
    there, back = used(prod, cons), used(cons, prod)
    assert 0 <= there < WRAP
    assert (there + back) % WRAP == 0
    assert (cons + there) % WRAP == prod


@given(POSITIONS)
def test_an_index_is_a_position_that_wraps(position: int) -> None:
    assert index_of(position) == position % WRAP == position & INDEX_MASK


@given(POSITIONS, st.integers(0, WRAP - 1))
def test_a_position_is_found_again_from_any_base_before_it(base: int, ahead: int) -> None:
    """X2: the first from the base on with this index; the next one is a whole circle behind."""
    position = base + ahead
    assert position_of(index_of(position), base) == position
    assert position_of(index_of(position), position) == position
    assert position_of(index_of(position), position + 1) == position + WRAP


@given(POSITIONS, st.integers(0, RING_SIZE))
def test_spans_are_the_bytes_one_by_one(position: int, size: int) -> None:
    places = [(position + number) % RING_SIZE for number in range(size)]
    (offset, head), (rest_offset, rest) = spans(position, size)
    assert [*range(offset, offset + head), *range(rest_offset, rest_offset + rest)] == places
    assert rest_offset == 0 and offset < RING_SIZE


def test_a_span_crosses_both_wraps_at_once() -> None:
    """2^32 is a multiple of the ring's size, so the index wraps where the ring does."""
    assert spans(WRAP - 3, 10) == ((RING_SIZE - 3, 3), (0, 7))
    assert spans(2 * WRAP - RING_SIZE, RING_SIZE) == ((0, RING_SIZE), (0, 0))
    assert used(index_of(WRAP + 7), index_of(WRAP - 3)) == 10


@pytest.mark.parametrize("size", [-1, RING_SIZE + 1, WRAP])
def test_no_span_is_longer_than_the_ring(size: int) -> None:
    with pytest.raises(AssertionError):
        spans(0, size)
