# SPDX-License-Identifier: Apache-2.0
"""A guest's end of its ring, in steps that a test can stand between; and what its stream says.

G1. Of the page's words the guest stores only its own, from local copies.
G2. A RingGuest is a value: copy() is the guest at that moment, since nothing in it is changed in
    place. So a test can go back to it with the memory that belongs to it.
Shares no code with the server but the constants. Cannot show: torn index loads."""

from __future__ import annotations

import struct
from typing import NamedTuple

RING_SIZE, REQ, RSP = 1024, 0, 1024
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, FEATURES, CONNECTION, ERROR = range(512, 519)  # words
MASK = 0xFFFFFFFF
HEADER = struct.Struct("<IIII")
TRANSACTION_START, WATCH_EVENT = 6, 15
ALL = 1 << 62


class Packet(NamedTuple):
    """A reply or event. `tx`: 0, or the transaction's number in order of first appearance."""

    type: int
    req_id: int
    tx: int
    payload: bytes


class RingGuest:
    """What a guest knows: `unsent` requests, all bytes `received`, a tuple with one entry for each
    connection that it had, and its own two indices. `may_read` and `may_send`: how many bytes it
    reads and sends yet, of its own accord."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.is_connected = False
        self.received: tuple[bytes, ...] = (b"",)
        self.unsent = b""
        self.req_prod = self.rsp_cons = 0
        self.next_req_id = 1
        self.may_read = self.may_send = ALL

    def ask(self, kind: int, payload: bytes, tx_id: int = 0) -> None:
        """Have one more request to send."""
        self.unsent += HEADER.pack(kind, self.next_req_id, tx_id, len(payload)) + payload
        self.next_req_id += 1

    def act(self, page: bytearray | None) -> bool:
        """Read and send what can be; whether anything moved."""
        if not self.is_connected or page is None:
            return False
        has_read = self.read(page)
        size = self.copy_request(page)
        if size:
            self.tell(page, size)
        return has_read or size > 0

    def read(self, page: bytearray) -> bool:
        """Take what is in the ring, as much as may be read."""
        words = memoryview(page).cast("I")
        waiting = (words[RSP_PROD] - self.rsp_cons) & MASK
        assert waiting <= RING_SIZE, f"guest {self.domid}: rsp_prod is {waiting} ahead"
        size = min(waiting, self.may_read)
        if size == 0:
            return False
        offset = self.rsp_cons % RING_SIZE
        ring = page[RSP:RSP + RING_SIZE]
        self.received = *self.received[:-1], self.received[-1] + (ring + ring)[offset:offset + size]
        self.rsp_cons = (self.rsp_cons + size) & MASK
        self.may_read -= size if self.may_read != ALL else 0
        words[RSP_CONS] = self.rsp_cons
        return True

    def copy_request(self, page: bytearray) -> int:
        """Copy bytes of requests into the ring, without saying so; how many."""
        words = memoryview(page).cast("I")
        filled = (self.req_prod - words[REQ_CONS]) & MASK
        assert filled <= RING_SIZE, f"guest {self.domid}: req_cons is {filled - RING_SIZE} ahead"
        size = min(len(self.unsent), RING_SIZE - filled, self.may_send)
        for index in range(size):
            page[REQ + (self.req_prod + index) % RING_SIZE] = self.unsent[index]
        return size

    def tell(self, page: bytearray, size: int) -> None:
        """Store req_prod for the bytes that were copied."""
        self.unsent = self.unsent[size:]
        self.may_send -= size if self.may_send != ALL else 0
        self.req_prod = (self.req_prod + size) & MASK
        memoryview(page).cast("I")[REQ_PROD] = self.req_prod

    def begin(self, page: bytearray) -> None:
        """Its ring was introduced: a new connection, with all indices at 0."""
        words = memoryview(page).cast("I")
        assert list(words[REQ_CONS:RSP_PROD + 1]) == [0, 0, 0, 0], "introduced, but not reset"
        assert (words[CONNECTION], words[ERROR]) == (0, 0)
        self.is_connected = True
        self.may_read = self.may_send = ALL
        self.req_prod = self.rsp_cons = 0
        self.received = *self.received, b""

    def stop(self) -> None:
        """It does not look at its ring any more."""
        self.is_connected = False
        self.unsent = b""

    # -- what it was told

    def packets(self) -> list[list[Packet]]:
        """Per connection, all packets, with transactions numbered by first appearance. A stream
        that ends within a packet raises, and so does a transaction's id that is given twice."""
        numbers: dict[bytes, int] = {b"0": 0}
        found: list[list[Packet]] = []
        for stream in self.received:
            packets, offset = [], 0
            while offset < len(stream):
                kind, req_id, tx_id, size = HEADER.unpack_from(stream, offset)
                payload = stream[offset + HEADER.size:offset + HEADER.size + size]
                assert len(payload) == size, f"guest {self.domid} has got half a packet"
                if kind == TRANSACTION_START:
                    assert payload[:-1] not in numbers, f"transaction {payload!r} given again"
                    numbers[payload[:-1]] = len(numbers)
                    payload = b"%d" % numbers[payload[:-1]]
                tx = numbers.setdefault(b"%d" % tx_id, len(numbers))
                packets.append(Packet(kind, req_id, tx, payload))
                offset += HEADER.size + size
            found.append(packets)
        return found

    def last_reply(self) -> tuple[int, bytes]:
        """Type and payload of the last reply of this connection; (-1, b"") if there was none."""
        last = -1, b""
        for kind, _, payload in self._packets():
            last = last if kind == WATCH_EVENT else (kind, payload)
        return last

    def tx_id(self) -> int:
        """The transaction that was begun last; an id that nobody has if there was none."""
        found = MASK
        for kind, _, payload in self._packets():
            if kind == TRANSACTION_START:
                found = int(payload.rstrip(b"\0"))
        return found

    def _packets(self) -> list[tuple[int, int, bytes]]:
        stream, offset, found = self.received[-1], 0, []
        while offset < len(stream):
            kind, req_id, _, size = HEADER.unpack_from(stream, offset)
            found.append((kind, req_id, stream[offset + HEADER.size:offset + HEADER.size + size]))
            offset += HEADER.size + size
        return found
