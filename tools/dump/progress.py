# SPDX-License-Identifier: Apache-2.0
"""How far a command is, for who waits at a terminal: one line of standard error, written over."""

from __future__ import annotations

import sys
import time

FIRST_S = 0.5  # whoever waits less is told nothing
AGAIN_S = 0.2


class Progress:
    """From record `first` to record `newest`. `unit`: what is counted meanwhile."""

    def __init__(self, first: int, newest: int, unit: str) -> None:
        self._first, self._newest, self._unit = first, max(newest, first + 1), unit
        self._is_shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next_s = self._began + FIRST_S

    def tell(self, sequence: int, count: int) -> None:
        """All up to record `sequence` is done, and `count` units are."""
        now = time.monotonic()
        if not self._is_shown or now < self._next_s:
            return
        self._next_s = now + AGAIN_S
        part = min((sequence - self._first) / (self._newest - self._first), 1)
        speed = count / (now - self._began)
        print(f"\r{part:4.0%}, {count:,} {self._unit}, {speed:,.0f} a second ", end="",
              file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line empty."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_shown = False
