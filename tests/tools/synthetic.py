# SPDX-License-Identifier: Apache-2.0
"""Regions made in process, for what takes too long or cannot be had from a real server: many
domains, many changes, many nodes, laps of the log, damage.

Knows nothing of what is looked for in them."""

from __future__ import annotations

import random

from app import wire
from app.client import Client
from persist import layout
from tests.crash.world import ArrayMedium, Life


class Host(Life):
    """A life in which requests come from any domain, with the rights of domain 0."""

    def by(self, domid: int, *requests: tuple[int, int, bytes]) -> None:
        """One turn of a domain's requests, and what follows it."""
        client = next((one for one in self.store.clients if one.domid == domid), None)
        if client is None:
            client = Client(100 + domid, domid, pid=4000 if domid == 0 else 0, privileged=True)
            self.store.clients.add(client)
        self.client = client
        self.turn(*requests)
        self.tidy()

    def write(self, domid: int, path: str, value: bytes) -> None:
        """One WRITE."""
        self.by(domid, (wire.XS_WRITE, 0, path.encode() + b"\0" + value))

    def pause(self, seconds: float) -> None:
        """Time goes on."""
        self._time_us += int(seconds * 1e6)


def boot(host: Host, domid: int, devices: int = 2) -> None:
    """A domain's nodes, each device's in one turn of several requests."""
    home = f"/local/domain/{domid}"
    for name, value in (("name", b"guest-%d" % domid), ("memory/target", b"1048576"),
                        ("vm", b"/vm/%d" % domid), ("control/shutdown", b"")):
        host.write(0, f"{home}/{name}", value)
    for number in range(devices):
        front = f"{home}/device/vbd/{number}".encode()
        back = b"/local/domain/0/backend/vbd/%d/%d" % (domid, number)
        host.by(0, (wire.XS_WRITE, 0, front + b"/backend\0" + back),
                (wire.XS_WRITE, 0, back + b"/frontend\0" + front),
                (wire.XS_SET_PERMS, 0, back + b"\0n0\0r0\0"))
        for state in b"1234":
            host.write(domid, (front + b"/state").decode(), bytes([state]))
            host.write(0, (back + b"/state").decode(), bytes([state]))


def busy_host(changes: int, nodes: int = 0, region_size: int = 4 << 20, seed: int = 7) -> Host:
    """`changes` changes by ten domains in several lives, over a tree of about `nodes` nodes."""
    chance = random.Random(seed)
    host = Host(ArrayMedium(region_size))
    for number in range(nodes // 20):
        host.by(0, *((wire.XS_WRITE, 0, b"/bulk/%d/%d\0%d" % (number, one, number * one))
                     for one in range(19)))
    done, alive = 0, set[int]()
    while done < changes:
        domid = chance.randrange(1, 11)
        if domid not in alive:
            boot(host, domid)
            alive.add(domid)
            done += 22
        elif chance.random() < 0.004:
            host.by(0, (wire.XS_RM, 0, b"/local/domain/%d\0" % domid))
            alive.discard(domid)
            done += 1
        elif chance.random() < 0.002:
            host.pause(chance.random() * 600)
            host.tidy(idle=True)
            host = Host(host.medium, host._time_us)
        else:
            host.write(domid, f"/local/domain/{domid}/data/{chance.randrange(6)}",
                       b"tick %d" % done * chance.randrange(1, 8))
            done += 1
            if chance.random() < 0.02:
                host.pause(chance.random() * 5)
    return host


def damaged(host: Host) -> bytes:
    """Its region, with a byte of the log flipped two thirds on."""
    log = host.journal.log
    image = bytearray(host.medium.bytes)
    begin = max(log.tail - log.size, 0)
    place = begin + (log.tail - begin) * 2 // 3
    image[layout.LOG_OFFSET + place % log.size] ^= 4
    return bytes(image)
