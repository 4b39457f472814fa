# SPDX-License-Identifier: Apache-2.0
"""What a machine offers to the rings: pages, event channels, and word of its domains.

M1. map_page() and bind() store nothing into the page: whoever dies behind them changed nothing.
M2. A notification is a level, not a count, and may be lost with a life: who starts looks at every
    ring and every domain.
M3. Nothing here survives the process by itself: a new life maps and binds again, by the same
    grant reference and remote port. Closing our end leaves the peer's reserved for us.
Adapters, one file each: sim.py, linux.py, unikraft.py. Knows nothing of what the ports are for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ring.page import Page


class HostError(Exception):
    """The machine refuses; the text says what was asked for and why it cannot be."""


class DomainState(NamedTuple):
    """A domain that exists. `identity` tells it from others with the same number, before and
    after it (0: not known yet); `is_shutdown`: it has shut down or crashed, but is not gone."""

    identity: int
    is_shutdown: bool


class OwnRing(NamedTuple):
    """Domain 0's own ring, which nobody introduces: its mapped page, and the remote port that
    bind(0, ...) takes."""

    page: Page
    remote_port: int
    identity: int = 0  # as in DomainState


class Host(Protocol):
    """One machine. All methods are quick; none waits."""

    virq_port: int  # the local port that says: some domain's state may have changed
    poll_interval_s: float | None  # how often to look at all domains anyway; None: never

    def fileno(self) -> int:
        """Readable while pending() has something to tell."""

    def pending(self) -> list[int]:
        """Local ports raised since they were told last, a bounded number of them."""

    def map_page(self, domid: int, gfn: int) -> Page:
        """A domain's ring, by GREF_XENSTORE; `gfn`: what INTRODUCE named. Raises HostError."""

    def bind(self, domid: int, remote_port: int) -> int:
        """Bind an interdomain event channel; returns the local port. Raises HostError."""

    def unbind(self, port: int) -> None:
        """Close a local port."""

    def notify(self, port: int) -> None:
        """Raise the other end of a local port. A peer that is gone is no error."""

    def own_ring(self) -> OwnRing | None:
        """Domain 0's ring, or None where there is none to serve."""

    def look(self, domid: int) -> DomainState | None:
        """The state of a domain other than 0; None: there is none, or it is dying.

        Raises HostError if that cannot be told now."""

    def changed(self) -> set[int] | None:
        """The domids whose state may have changed since the last call; None: any may have."""

    def close(self) -> None:
        """Let go of all ports and devices."""
