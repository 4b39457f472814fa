# SPDX-License-Identifier: Apache-2.0
"""A simulated Xen directory, and a real server on it, for past bugs that guests can meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oracle.guest import RingConnection, SimXen
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import SocketConnection


class House:
    """A server with guests. Not started by the constructor."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        (directory / "sim").mkdir()
        self.sim = SimXen(directory / "sim")
        self.server = OurServer(sim=self.sim.directory, arguments=arguments)

    def dom0(self) -> SocketConnection:
        """A new client on the socket."""
        return SocketConnection(self.server.socket_path)

    def guest(self, domid: int) -> RingConnection:
        """A new domain with a home, introduced."""
        self.sim.create_domain(domid)
        with self.dom0() as dom0:
            dom0.mkdir(f"/local/domain/{domid}")
            dom0.set_perms(f"/local/domain/{domid}", f"n{domid}")
            dom0.introduce(domid)
        return RingConnection(self.sim, domid)


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(*arguments: str) -> House:
        house = House(tmp_path, *arguments)
        made.append(house)
        house.server.start()
        return house
    yield make
    for house in made:
        house.server.discard()
        house.sim.close()
