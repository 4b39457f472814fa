# SPDX-License-Identifier: Apache-2.0
"""Clients at work while the machine dies, and the exact check of what they were promised.

O1. P1 and P3: the clients of tests/crash/kill9.py. What was acknowledged is there, what was under
    way is there whole or not at all, and nothing else is.
O2. A transaction's id is given out once, in all lives of a machine's memory together.
O3. When the machine dies every connection is closed: a client that waits for ever is a failure."""

from __future__ import annotations

import struct
import threading
import time

from app import wire
from tests.crash.kill9 import Client
from tests.qemu.machine import CRASH_S, POLL_S, Machine, wait_closed

ANY_ERROR = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError,
             TypeError, ValueError, struct.error)


class Writer(Client):
    """A client that says what it has met, instead of ending its thread silently."""

    def __init__(self, number: int, socket_path: str, seed: int) -> None:
        super().__init__(number, socket_path, seed)
        self.tx_ids: list[int] = []
        self.problem: BaseException | None = None

    def request(self, kind: int, payload: bytes, tx_id: int = 0) -> bytes:
        """One request; returns the payload."""
        body = super().request(kind, payload, tx_id)
        if kind == wire.XS_TRANSACTION_START:
            self.tx_ids.append(int(body.rstrip(b"\0")))
        return body

    def work(self) -> None:
        """Change things until the server is gone."""
        try:
            super().work()
        except ANY_ERROR as error:  # end() raises it where it is seen
            self.problem = error

    def close(self) -> None:
        """Let go of the connection."""
        if self._sock is not None:
            self._sock.close()


class Load:
    """Some writers, through all lives of a machine. `first` tells their keys from other loads'."""

    def __init__(self, machine: Machine, seed: int, writers: int = 3, first: int = 0) -> None:
        self._machine = machine
        self.seed = seed
        self.writers = [Writer(first + number, str(machine.socket_path), seed)
                        for number in range(writers)]
        self._threads: list[threading.Thread] = []
        self.under_way = 0  # requests that were, at a death

    @property
    def operations(self) -> int:
        """Acknowledged so far."""
        return sum(writer.operations for writer in self.writers)

    def start(self) -> None:
        """All go to work, each on a new connection."""
        self._threads = [threading.Thread(target=writer.work, daemon=True)
                         for writer in self.writers]
        for writer, thread in zip(self.writers, self._threads, strict=True):
            writer.connect()
            thread.start()

    def wait(self, operations: int) -> None:
        """Until so many more are acknowledged."""
        wanted = self.operations + operations
        deadline = time.monotonic() + CRASH_S
        while self.operations < wanted:
            for writer in self.writers:
                if writer.problem is not None:
                    raise self._machine.error(f"seed {self.seed}: client {writer.number} met "
                                              f"{writer.problem!r}")
            if time.monotonic() > deadline:
                raise self._machine.error(f"{operations} operations are not acknowledged within "
                                          f"{CRASH_S:g} s")
            time.sleep(POLL_S)

    def end(self) -> None:
        """Until all have seen their connection close."""
        for writer, thread in zip(self.writers, self._threads, strict=True):
            thread.join(CRASH_S)
            assert not thread.is_alive(), self._machine.error(
                f"client {writer.number}'s connection was not closed by the death")
            assert writer.problem is None, self._machine.error(
                f"seed {self.seed}: client {writer.number} met {writer.problem!r}")
        self.under_way += sum(writer.under_way is not None for writer in self.writers)

    def check(self) -> None:
        """Compare what is there with what was acknowledged (O1, O2); connections are new ones."""
        for writer in self.writers:
            writer.close()
            writer.connect()
            problem = writer.check()
            assert problem is None, self._machine.error(f"seed {self.seed}: {problem}")
            writer.close()
            for tx_id in writer.tx_ids:
                assert tx_id not in self._machine.given_tx_ids, self._machine.error(
                    f"transaction id {tx_id} was given out twice")
                self._machine.given_tx_ids.add(tx_id)
            writer.tx_ids.clear()
        answer = self._machine.control("check")
        assert answer == "OK", self._machine.error(f"CONTROL check: {answer}")


def crash_under(load: Load, machine: Machine, *words: object, operations: int = 12,
                serving_s: float = 0.0) -> float:
    """A crash while the writers are at work, by CONTROL; then the check. Seconds from the answer
    to the first reply of the next life. It comes after so many operations, and so much time."""
    load.start()
    not_before_s = time.monotonic() + serving_s
    load.wait(operations)
    while time.monotonic() < not_before_s:
        load.wait(1)
    with machine.connect() as client:
        assert client.control("crash", *words) == "OK"
        began_s = time.monotonic()
        wait_closed(client, machine)
    machine.wait_served(CRASH_S)
    took_s = time.monotonic() - began_s
    load.end()
    load.check()
    return took_s
