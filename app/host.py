# SPDX-License-Identifier: Apache-2.0
"""What the server asks of the machine it runs on: today only whether a domain exists.

Hosts: none (no hypervisor: domain 0 alone), sim:DIR (the simulated Xen directory of tests/oracle).
Knows nothing of the store."""

from __future__ import annotations

import os
from typing import Protocol

from app.errors import Enomem
from app.perms import DOMID_FIRST_RESERVED

_ALIVE = ("running", "shutdown", "crashed")


class Host(Protocol):
    """The hypervisor's side."""

    def exists(self, domid: int) -> bool:
        """Whether there is a domain `domid`, other than 0, at this moment."""


class NoHost:
    """No hypervisor: there is no domain but 0."""

    def exists(self, domid: int) -> bool:
        """Never."""
        return False


class SimHost:
    """The simulated Xen directory: file state.DOMID holds one word."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def exists(self, domid: int) -> bool:
        """Whether the domain's state is running, shutdown or crashed. Raises Enomem if its file
        cannot be read: that is no answer."""
        if domid >= DOMID_FIRST_RESERVED:
            return False
        try:
            with open(os.path.join(self._directory, f"state.{domid}"), encoding="ascii",
                      errors="replace") as file:
                return file.readline(32).strip() in _ALIVE
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Enomem from error  # out of descriptors or not readable: we do not know


def make_host(spec: str) -> Host:
    """The host of a --host argument. Raises ValueError with one clear line."""
    kind, _, rest = spec.partition(":")
    if spec == "none":
        return NoHost()
    if kind == "sim" and rest:
        if not os.path.isdir(rest):
            raise ValueError(f"--host {spec}: {rest} is no directory")
        return SimHost(rest)
    raise ValueError(f"--host {spec}: expected none or sim:DIR")
