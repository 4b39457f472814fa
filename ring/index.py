# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of free-running 32-bit indices, and of the 64-bit positions behind them.

X1. An index is never compared with another: only their distance modulo 2^32 means something.
X2. A position is an index that does not wrap: its low 32 bits are the index in the page.
Knows nothing of pages."""

from ring.layout import RING_MASK, RING_SIZE

INDEX_MASK = 0xFFFFFFFF


def index_of(position: int) -> int:
    """The index that stands in the page for a stream position."""
    return position & INDEX_MASK


def used(prod: int, cons: int) -> int:
    """Bytes between the consumer's and the producer's index; more than RING_SIZE is a lie."""
    return (prod - cons) & INDEX_MASK


def position_of(index: int, base: int) -> int:
    """The first position from `base` on whose index is `index`."""
    return base + ((index - base) & INDEX_MASK)


def spans(position: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(offset, size) in the ring of the bytes [position, position + size), cut where it wraps;
    the second size is zero if it does not."""
    assert 0 <= size <= RING_SIZE
    offset = position & RING_MASK
    head = min(size, RING_SIZE - offset)
    return (offset, head), (0, size - head)
