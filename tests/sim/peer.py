# SPDX-License-Identifier: Apache-2.0
"""A guest's end of its ring: bytes in, bytes out, and what an honest guest may demand of the page.

E1. The server's indices only ever go forward, and never further than what there is.
E2. An index of ours is stored as one word from a local copy, behind the bytes that it announces.
E3. `is_sparing`: notify as Linux's xenbus driver does: after a write only if all before it had
    been consumed, after a read only if the ring was full. Else: notify after each.
Knows nothing of xenstore. Shares no code with ring/queue.py on purpose."""

from __future__ import annotations

from tests.sim.machine import Domain, Machine

SIZE = 1024
MASK = 0xFFFFFFFF
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, FEATURES, CONNECTION, ERROR = (
    word // 4 for word in range(2048, 2076, 4))


class Violation(AssertionError):
    """The server broke a promise."""


class Peer:
    """The ring of a domain as that domain uses it."""

    def __init__(self, machine: Machine, domain: Domain, is_sparing: bool) -> None:
        self.domain = domain
        self.bytes = memoryview(domain.page)
        self.words = self.bytes.cast("I")
        self.is_sparing = is_sparing
        self._machine = machine
        self._req_cons = self.words[REQ_CONS]  # as seen last
        self._req_prod = self.words[REQ_PROD]
        self._rsp_cons = self.words[RSP_CONS]
        self._rsp_prod = self.words[RSP_PROD]

    @property
    def error(self) -> int:
        """The error word."""
        return self.words[ERROR]

    def write(self, data: bytes | bytearray) -> int:
        """Put as much of `data` into the ring as fits before it wraps; how many bytes."""
        cons = self.words[REQ_CONS]
        if (cons - self._req_cons) & MASK > (self._req_prod - self._req_cons) & MASK:
            raise Violation(f"domain {self.domain.domid}: req_cons went from "
                            f"{self._req_cons:#x} to {cons:#x} with req_prod {self._req_prod:#x}")
        self._req_cons = cons
        start = self._req_prod % SIZE
        size = min(len(data), SIZE - ((self._req_prod - cons) & MASK), SIZE - start)
        if size == 0:
            return 0
        self.bytes[start:start + size] = data[:size]
        before = self._req_prod
        self._req_prod = (before + size) & MASK
        self.words[REQ_PROD] = self._req_prod
        if not self.is_sparing or self.words[REQ_CONS] == before:
            self._machine.kick(self.domain)
        return size

    def read(self, most: int) -> bytes:
        """Take up to `most` bytes that came, up to where the ring wraps."""
        prod = self.words[RSP_PROD]
        moved = (prod - self._rsp_prod) & MASK
        if moved > SIZE - ((self._rsp_prod - self._rsp_cons) & MASK):
            raise Violation(f"domain {self.domain.domid}: rsp_prod went from "
                            f"{self._rsp_prod:#x} to {prod:#x} with rsp_cons {self._rsp_cons:#x}")
        self._rsp_prod = prod
        start = self._rsp_cons % SIZE
        waiting = (prod - self._rsp_cons) & MASK
        size = min(waiting, most, SIZE - start)
        if size == 0:
            return b""
        data = bytes(self.bytes[SIZE + start:SIZE + start + size])
        self._rsp_cons = (self._rsp_cons + size) & MASK
        self.words[RSP_CONS] = self._rsp_cons
        if not self.is_sparing or waiting == SIZE:
            self._machine.kick(self.domain)
        return data
