# SPDX-License-Identifier: Apache-2.0
"""What the core asks of the machine it runs on: domains, and connections to them.

Implemented by guests.py for machines with rings, and here for those without.
Knows nothing of pages and ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from app.errors import Einval

if TYPE_CHECKING:
    from app.client import Client


class Domain(NamedTuple):
    """A domain that exists: what tells it from another with its number (0: not known yet), and
    whether it has shut down or crashed."""

    identity: int
    is_shutdown: bool


class Host(Protocol):
    """The hypervisor's side. What these change outside of memory, a crash undoes by itself."""

    def look(self, domid: int) -> Domain | None:
        """A domain other than 0 as it is now; None: there is none, or it is dying.

        Raises Enomem if that cannot be told."""

    def attach(self, domid: int, epoch: int, gfn: int, port: int) -> Client:
        """Map the domain's ring and bind its port; nothing is stored into the ring. A connection
        that it had is given up. Raises Einval if the machine refuses."""

    def detach(self, client: Client) -> None:
        """Give up ring and port."""


class NoHost:
    """No hypervisor: there is no domain but 0."""

    def look(self, domid: int) -> Domain | None:
        """Nobody."""
        return None

    def attach(self, domid: int, epoch: int, gfn: int, port: int) -> Client:
        """There is nobody to attach."""
        raise Einval

    def detach(self, client: Client) -> None:
        """Nothing was attached."""
