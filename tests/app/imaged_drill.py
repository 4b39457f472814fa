# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the image's built-in module _drill, for imaged.py: each function ends the process
as a fault would, by its signal."""

from __future__ import annotations

import os
import signal


def _by(number: int) -> None:
    os.kill(os.getpid(), number)


def page_fault() -> None:
    """A store where no memory is."""
    _by(signal.SIGSEGV)


def null() -> None:
    """A store to address 0."""
    _by(signal.SIGSEGV)


def general_protection() -> None:
    """A store to an address that cannot be one."""
    _by(signal.SIGBUS)


def illegal_instruction() -> None:
    """An instruction that is none."""
    _by(signal.SIGILL)


def wild_write(address: int, size: int) -> None:
    """A store of `size` bytes at `address`."""
    assert (address, size) == (0x1000, 16)
    _by(signal.SIGSEGV)
